"""Independent continuations from a draft model, as SpecTr and SpecInfer verify them."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.part import Asking
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session


@dataclass
class IidPaths(Grown):
    """Draws ``width`` continuations of ``length`` tokens, each by itself; where they agree they share their nodes.

    ``path``, ``layers``: the draft model, as for ``model``. A repeated token is a ghost that counts in the verdict, and
    its path goes on below the first one. Under a greedy law all paths are one.
    """

    paper = "SpecTr: Fast Speculative Decoding via Optimal Transport (Sun et al. 2023)"
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"path": "toy", "width": 2, "length": 1},)
    length: int = 3
    width: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or self.width < 1:
            raise ValueError(f"iid needs length >= 1 and width >= 1, not length={self.length}, width={self.width}")

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        tree = self.empty(Scheme.IID)
        through = {ROOT: 1 if self._laws.greedy else self.width}  # node -> how many paths go through it
        for _ in range(min(self.length, budget.depth)):
            if len(tree) >= budget.nodes:
                break
            below: dict[int, int] = {}
            for (node, paths), q in zip(
                through.items(), (yield from self.after(session, tree, list(through))), strict=True
            ):
                for _ in range(min(paths, budget.nodes - len(tree)) if q is not None else 0):
                    assert q is not None
                    child, _, _ = self.draw(tree, node, q, rng)
                    first = next(i for i in tree.children(node) if tree.tokens[i] == tree.tokens[child])
                    below[first] = below.get(first, 0) + 1
            through = below
        return tree
