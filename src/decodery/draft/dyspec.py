"""DySpec: the tree grows where verification will most likely look."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model
from decodery.core.step import Step
from decodery.core.tally import Tally
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Tensor
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session

STEPS = 10
"""Number of bins for calibrating draft probabilities against observed acceptance."""
TRUST = 6.0
"""Prior weight: the draft's own probability counts as this many observations."""


@dataclass
class DySpec(Grown):
    """Draws ``nodes`` nodes, always the one that verification most likely asks for, by the draft's chances.

    ``path``, ``layers``: the draft model, as for ``model``. ``least``: draw nothing whose chance to be asked for is
    estimated lower, and go level by level, which takes one pass of the draft model a level; 0 uses all nodes. ``length``:
    greatest depth. Under a greedy law it takes the likeliest beginnings. ``calibrate``: where guesses of such a chance stood
    more or less often than that, on this object so far, count them so (not in the paper; a draft may be too sure).
    The counts can be saved.
    """

    paper = "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure (Xiong et al. 2024), algorithm 1"
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"path": "toy", "nodes": 2},)
    nodes: int = 8
    least: float = 0.0
    length: int = 8
    calibrate: bool = True
    lore: Tally[tuple[bool, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes < 1 or self.length < 1 or not 0 <= self.least < 1:
            raise ValueError(
                f"dyspec needs nodes >= 1, length >= 1 and 0 <= least < 1, "
                f"not nodes={self.nodes}, length={self.length}, least={self.least}"
            )

    def new_lore(self, model: Model) -> Tally[tuple[bool, int]]:
        return Tally(weight=TRUST, width=2)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        tree, greedy = self.empty(Scheme.DISTINCT), self._laws.greedy
        self._alike: dict[tuple[int, ...], tuple[bool, int]] = {}  # which of the judged a node is like, by its path
        law: dict[int, Tensor | None] = {}  # node -> the law of its next child
        # The chance that a node is reached and all its children so far refused; before it, what orders the nodes.
        heap = [(0, -1.0, ROOT, 1.0)]
        while heap and len(tree) < min(self.nodes, budget.nodes):
            level, key, node, value = heapq.heappop(heap)
            if -key < self.least or (0 if node == ROOT else tree.depths[node]) >= min(self.length, budget.depth):
                continue
            if node not in law:  # one pass for all that were drawn since the last
                fresh = [i for i in range(len(tree)) if i not in law] if law else [ROOT]
                law.update(zip(fresh, (yield from self.after(session, tree, fresh)), strict=True))
            if (q := law[node]) is None:
                continue
            # What is certain to be drawn counts before it is drawn; what is random must not.
            first = not tree.children(node)
            if greedy and (known := -value * self._chance(first, float(q.max()))) > key:
                heapq.heappush(heap, (level, known, node, value))
                continue
            child, drawn, law[node] = self.draw(tree, node, q, rng)
            chance, self._alike[tree.words(child)] = self._chance(first, drawn), alike(first, drawn)
            for follower, estimate in ((node, value * (1 - chance)), (child, value * chance)):
                depth = tree.depths[follower] if self.least and follower != ROOT else 0
                heapq.heappush(heap, (depth, -estimate, follower, estimate))
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        super().observe(session, step, rng)
        node, path = ROOT, step.verdict.path
        # Where the text ended early, nobody knows what would have stood next.
        for accepted in path if len(step.tokens) == len(path) else (*path, ROOT):
            for child in step.tree.children(node):
                if key := self._alike.get(step.tree.words(child)):  # else another drafter's, in a mix
                    self.lore.book(key, child == accepted)
                if child == accepted:
                    break
            node = accepted

    def _chance(self, first: bool, drawn: float) -> float:
        """The chance that a child stands, once it is reached."""
        return self.lore.rate(alike(first, drawn), drawn) if self.calibrate else drawn


def alike(first: bool, drawn: float) -> tuple[bool, int]:
    """Guesses that are judged together: first children or later ones, of about the same chance."""
    return first, int(STEPS * drawn)
