"""DySpec: the tree grows where verification will most likely look."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from decodery.draft.grow import Grown
from decodery.model.session import Session
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Chooser, Scheme, Tensor


@dataclass
class DySpec(Grown):
    """Draws ``nodes`` nodes, always the one that verification most likely asks for, the draft's chance taken for p's.

    ``path``, ``layers``: the draft model, as for ``model``. ``least``: draw nothing whose chance to be asked for is
    estimated lower, and go level by level, which takes one pass of the draft model a level; 0 uses all nodes. ``length``:
    greatest depth. Under a greedy law it takes the likeliest beginnings.
    """

    paper = "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure (Xiong et al. 2024), algorithm 1"
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"path": "toy", "nodes": 2},)
    nodes: int = 8
    least: float = 0.0
    length: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes < 1 or self.length < 1 or not 0 <= self.least < 1:
            raise ValueError(
                f"dyspec needs nodes >= 1, length >= 1 and 0 <= least < 1, "
                f"not nodes={self.nodes}, length={self.length}, least={self.least}"
            )

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree, greedy = self.empty(Scheme.DISTINCT), self._laws.greedy
        law: dict[int, Tensor | None] = {}  # node -> the law of its next child
        # The chance that a node is reached and all its children so far refused; before it, what orders the nodes.
        heap = [(0, -1.0, ROOT, 1.0)]
        while heap and len(tree) < min(self.nodes, budget.nodes):
            level, key, node, value = heapq.heappop(heap)
            if -key < self.least or (0 if node == ROOT else tree.depths[node]) >= min(self.length, budget.depth):
                continue
            if node not in law:  # one pass for all that were drawn since the last
                fresh = [i for i in range(len(tree)) if i not in law] if law else [ROOT]
                law.update(zip(fresh, self.after(session, tree, fresh), strict=True))
            if (q := law[node]) is None:
                continue
            # What is certain to be drawn counts before it is drawn; what is random must not.
            if greedy and (known := -value * float(q.max())) > key:
                heapq.heappush(heap, (level, known, node, value))
                continue
            child, chance, law[node] = self.draw(tree, node, q, rng)
            for follower, estimate in ((node, value * (1 - chance)), (child, value * chance)):
                depth = tree.depths[follower] if self.least and follower != ROOT else 0
                heapq.heappush(heap, (depth, -estimate, follower, estimate))
        return tree
