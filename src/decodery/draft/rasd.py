"""RASD: the tree of a draft model and continuations found in the text, merged into one."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model, ready
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Tensor
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session
from decodery.run.registry import default


@dataclass
class Rasd(Grown):
    """Merges a tree drawn from a draft model with retrieved continuations whose first token the draft model believes in.

    ``path``, ``layers``, ``length``, ``width``: the draft model and its tree, as for ``model``. ``retrieve``: the drafter
    that retrieves (default: 4 continuations of 10 tokens behind the last 3 to 1 tokens). ``k``: only those stay that begin
    with one of the ``k`` likeliest tokens of the draft's law. ``nodes``: retrieved nodes at most, those of the likeliest
    and most frequent beginnings first. Where tokens are sampled, the retriever must be certain, and its nodes stand behind
    the drawn ones. The memory is that of the retriever.
    """

    paper = "RASD: Retrieval-Augmented Speculative Decoding (Quan et al. 2025)"
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    accepts = frozenset({Scheme.CERTAIN})
    specimens = (
        {"path": "toy", "length": 1, "k": 2, "retrieve": "ngram:min=1,length=2,width=2"},
        {"length": 1, "width": 2, "k": 3, "nodes": 2, "retrieve": "ngram:min=1,length=3,width=3"},
    )
    length: int = 3
    width: int = 1
    retrieve: Drafter = default("ngram", max=3, min=1, length=10, width=4)
    k: int = 10
    nodes: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.length, self.width, self.k, self.nodes) < 1:
            raise ValueError(
                "rasd needs length, width, k and nodes >= 1, "
                f"not length={self.length}, width={self.width}, k={self.k}, nodes={self.nodes}"
            )

    def inner(self) -> tuple[Drafter, ...]:
        return (self.retrieve,)

    def bind(self, model: Model) -> Self:
        super().bind(model)
        self.retrieve = ready(self.retrieve, model)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        super().begin(session, laws)
        self._first: Tensor | None = None
        """The draft's law of the next token, once it is known."""
        self._retriever = copy.copy(self.retrieve)  # the rows of a batch share what outlives a request only
        self._retriever.begin(session, laws)

    def after(self, session: Session, tree: TokenTree, nodes: Sequence[int]) -> Asking[list[Tensor | None]]:
        laws = yield from super().after(session, tree, nodes)
        if list(nodes) == [ROOT]:
            self._first = laws[0]
        return laws

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        self._first = None
        widths = [self.width, *[1] * (self.length - 1)][: budget.depth]
        tree = yield from self.levels(session, budget, rng, widths, settled=True)
        # As many as fit beside the largest tree, merged or not: how many of them are added must not decide on others, for
        # a verifier that looks at one branch before the next would learn there what was drawn here.
        room = max(0, budget.nodes - self.width * len(widths))
        found = yield from self._retriever.proposing(session, Budget(min(self.nodes, room), budget.depth), rng)
        if self._first is None or not (kept := pruned(found, self._first, self.k)):
            return tree
        # A certain node behind drawn siblings offers its token for sure: q is one-hot. Whether it is there, and not merged
        # with a drawn one, hangs on what was drawn; that is exact, for it is put to the law that the refusal of all drawn
        # siblings left, and nothing below it was drawn. But the shape is settled no more.
        tree.settled = False
        for node, place in tree.graft(found, kept, self._certain).items():
            if self._laws.greedy:  # of drawn nodes the kind must not tell what was drawn
                tree.kinds[place] = tree.kinds[place], found.kinds[node]
        return tree

    def _certain(self, token: int) -> Tensor | None:
        if self._laws.greedy or self._first is None:
            return None
        return torch.zeros_like(self._first).index_fill_(0, torch.tensor(token, device=self._first.device), 1.0)

    def observing(self, session: Session, step: Step, rng: Chooser) -> Asking[None]:
        yield from super().observing(session, step, rng)
        yield from self._retriever.observing(session, step, rng)

    def end(self, session: Session) -> None:
        super().end(session)
        self._retriever.end(session)


def pruned(found: TokenTree, law: Tensor, k: int) -> list[int]:
    """The nodes that begin with one of the ``k`` likeliest tokens, branch by branch: first those whose beginning has the
    highest chance times the number of continuations."""
    branch = [found.path(node)[0] for node in range(len(found))]
    leaves = Counter(branch[node] for node in range(len(found)) if not found.children(node))
    chances, tokens = law.topk(min(k, law.shape[-1]))
    likely = {token: chance for token, chance in zip(tokens.tolist(), chances.tolist(), strict=True) if chance > 0}
    kept = [node for node in range(len(found)) if found.tokens[branch[node]] in likely]
    return sorted(kept, key=lambda node: (-likely[found.tokens[branch[node]]] * leaves[branch[node]], branch[node]))
