"""ADED: a tri-gram matrix that learns from every pass, searched as a game tree is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from decodery.core.chooser import Chooser
from decodery.core.part import Model
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget
from decodery.draft.lib.triples import Triples
from decodery.model.session import Session

DOUBT = 0.25
"""How much less a refused row counts: its context is not the text."""


class Edge:
    """A token in the search tree: its chance P, its visits n, and Q, the mean chance of the paths through it."""

    __slots__ = ("below", "chance", "n", "token", "total")

    def __init__(self, token: int, chance: float) -> None:
        self.token, self.chance, self.n, self.total = token, chance, 0, 0.0
        self.below: list[Edge] | None = None

    def choose(self, below: Sequence[Edge], c1: float, c2: float) -> Edge:
        """The child to visit next: Q + P sqrt(N) / (1 + n) (c1 + log((N + c2 + 1) / c2)); the likeliest on ties."""
        explore = math.sqrt(self.n) * (c1 + math.log((self.n + c2 + 1) / c2))
        best, most = below[0], -1.0
        for child in below:
            score = child.total / (child.n or 1) + child.chance * explore / (1 + child.n)
            if score > most:
                best, most = child, score
        return best


@dataclass
class Aded(Drafter):
    """Walks a matrix of token triples from the last two tokens, balancing likely continuations against unvisited ones.

    The matrix holds the ``k`` likeliest tokens after each pair of tokens, and after each single token for pairs not seen.
    It follows the target's probabilities in every row of every pass with weight ``rate``, a quarter of it in refused rows.
    ``simulations``: walks a step, of ``depth`` tokens at most; the ``nodes`` most visited places are drafted. ``c1``,
    ``c2``: how much is explored. The matrix outlives a request, on this object only, and keeps the ``contexts`` learnt
    last: at most 1400 bytes each, 46 MB in all, and saved ``8 + 12 k`` bytes each, 5 MB.
    """

    paper = "Adaptive Draft-Verification for Efficient Large Language Model Decoding (Liu et al. 2024)"
    specimens = ({"nodes": 4, "depth": 2, "simulations": 6, "k": 2, "contexts": 9},)
    nodes: Annotated[int, Ge(1)] = 12
    depth: Annotated[int, Ge(1)] = 6
    simulations: Annotated[int, Ge(1)] = 24
    k: Annotated[int, Ge(1)] = 12
    rate: Annotated[float, Interval(gt=0, le=1)] = 0.5
    c1: Annotated[float, Ge(0)] = 1.25
    c2: Annotated[float, Gt(0)] = 19652.0
    contexts: Annotated[int, Ge(1)] = 1 << 15
    lore: Triples = field(init=False, repr=False, compare=False)

    def new_lore(self, model: Model) -> Triples:
        return Triples(self.k, self.contexts)

    def begin(self, session: Session, laws: Laws) -> None:
        for i in range(1, len(session.tokens)):
            self.lore.learn(session.tokens[max(0, i - 2) : i], {session.tokens[i]: 1.0}, self.rate)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        root, seen = Edge(session.tokens[-1], 1.0), dict[int, tuple[Edge, int]]()
        if min(budget) < 1:
            return TokenTree()
        for _ in range(self.simulations):
            self._simulate(root, session.tokens[-2:], min(self.depth, budget.depth), seen)
        tree, place = TokenTree(), {id(root): ROOT}
        # A parent is visited no less than its children, and first; so the tree is whole wherever the budget ends.
        for edge, parent in sorted(seen.values(), key=lambda one: -one[0].n)[: min(self.nodes, budget.nodes)]:
            place[id(edge)] = tree.add(edge.token, place[parent])
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        top = step.rows.logits.topk(min(self.k, step.rows.logits.shape[-1]))
        chances, tokens = top.values.float().softmax(-1).tolist(), top.indices.tolist()
        real = {0, *(step.rows.at(node) for node in step.verdict.path)}
        for row, path in enumerate(step.rows.paths):
            words = (*step.rows.context[-2:], *path)[-2:]
            rate = self.rate if row in real else DOUBT * self.rate
            self.lore.learn(words, dict(zip(tokens[row], chances[row], strict=True)), rate)

    def _simulate(self, root: Edge, words: Sequence[int], depth: int, seen: dict[int, tuple[Edge, int]]) -> None:
        """One walk to a leaf; on the way back visits grow by one and Q averages the chance of the whole path."""
        edge, path, chance = root, [root], 1.0
        while len(path) <= depth:
            if edge.below is None:
                edge.below = self._after(words)
            if not edge.below:
                break
            child = edge.choose(edge.below, self.c1, self.c2)
            seen.setdefault(id(child), (child, id(edge)))
            words, chance = (words[-1], child.token), chance * child.chance
            path.append(edge := child)
        for edge in path:
            edge.n += 1
            edge.total += chance

    def _after(self, words: Sequence[int]) -> list[Edge]:
        """P(c | a, b), the likeliest first; P(c | b) where the pair is new."""
        known = self.lore.after(words)
        total = sum(known.values())
        ranked = sorted(known.items(), key=lambda entry: -entry[1])
        return [Edge(token, weight / total) for token, weight in ranked]
