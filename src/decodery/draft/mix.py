"""Several drafters at once: their trees merged into one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Self

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws, Model
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.model.session import Session
from decodery.plan.acceptance import Forecast, Rates
from decodery.run.registry import made

KINDS = 32
"""Kinds of guesses told apart in each part."""


@dataclass
class Mix(Drafter):
    """Merges the drafts of several drafters into one tree, shared beginnings stored once: ``mix(ngram,recycling)``.

    ``parts``: the drafters, those whose first guess is best first (default: ngram and recycling). ``nodes``: of the whole
    tree at most; each part may propose as many, and those stay that are likeliest by what came true before of guesses
    alike: by the same parts, of the same kind, at the same place. Merged nodes are certain, so where tokens are sampled
    the parts must be certain too. The memory is that of the parts; what came true is remembered on this object.
    """

    paper = "RASD: Retrieval-Augmented Speculative Decoding (Quan et al. 2025), tree fusion"
    accepts = frozenset({Scheme.CERTAIN})
    specimens = ({"parts": ("ngram:min=1,length=2", "recycling"), "nodes": 4},)
    parts: tuple[Drafter, ...] = ()
    nodes: Annotated[int, Ge(1)] = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts = self.parts or (made("draft", "ngram"), made("draft", "recycling"))
        self._rates = Rates()

    def inner(self) -> tuple[Drafter, ...]:
        return self.parts

    def bind(self, model: Model) -> Self:
        self.parts = tuple(part.bind(model) for part in self.parts)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        # The rows of a batch share what outlives a request only.
        self._running = [copy.copy(part) for part in self.parts]
        self._forecast, self._merged = Forecast(self._rates), TokenTree()
        for part in self._running:
            part.begin(session, laws)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        self._merged = tree = TokenTree()
        nodes = min(self.nodes, budget.nodes)
        for i, part in enumerate(self._running):
            draft = part.propose(session, Budget(nodes, budget.depth), rng)
            for node, place in tree.graft(draft).items():
                # Who guessed it, and how: a guess that several parts share is likelier than each part's alone.
                tree.kinds[place] += (1 + draft.kinds[node] % (KINDS - 1)) * KINDS**i
        promise = self._forecast.promises(tree)
        return tree.only(sorted(range(len(tree)), key=lambda node: -promise[node])[:nodes])

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        self._forecast.learn(self._merged, step.tokens)
        for part in self._running:
            part.observe(session, step, rng)
