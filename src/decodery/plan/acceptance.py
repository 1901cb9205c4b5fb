"""Which guesses will be accepted: the acceptance rates seen so far at each kind of place in draft trees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from decodery.core.tally import Tally
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import SURE, Scheme

KEEP = 0.97
"""The share of a place's earlier observations that is kept at each new one: about the last 30 count."""
FIRST, DEEPER = 0.3, 0.6
"""Prior acceptance rates, of the first level and of deeper ones: where the guess above was right, the next one often is."""
TRUST = 6.0
"""Prior weight of the parent group's rate, in observations."""
DEEP, LONGEST_STREAK = 6, 3
"""Deeper guesses and longer streaks are counted as these."""


class Place(NamedTuple):
    """Where a guess stands; guesses of one place share an acceptance rate.

    ``streak``: for how many steps all that was committed had been guessed; ``kind``: the drafter's hint.
    """

    depth: int
    rank: int
    streak: int
    kind: Hashable

    def wider(self) -> Iterator[tuple[Hashable, ...]]:
        """The groups it belongs to, the widest first."""
        yield self.depth, self.rank
        yield self.depth, self.rank, self.streak
        yield self


@dataclass
class Rates:
    """Acceptance rates of places. What a place has not seen yet, the wider groups it belongs to tell."""

    tally: Tally[tuple[Hashable, ...]] = field(default_factory=lambda: Tally(weight=TRUST, keep=KEEP))

    def chance(self, place: Place) -> float:
        """That the guess is right, given that its parent is."""
        if place.kind == SURE:
            return 1.0
        chance = (FIRST if place.depth == 1 else DEEPER) / (1 + place.rank)
        for group in place.wider():
            chance = self.tally.rate(group, chance)
        return chance

    def book(self, place: Place, hit: bool) -> None:
        """One more guess was judged."""
        for group in place.wider():
            self.tally.book(group, hit)


@dataclass
class Forecast:
    """What the trees of one request promise, by rates that requests may share."""

    rates: Rates = field(default_factory=Rates)
    _streak: int = 0

    def promises(self, tree: TokenTree) -> list[float]:
        """The chance of each node to be accepted; none is above its parent's.

        Nor is a drawn one above that of the sibling before, which must not be left out where it stays.
        """
        promise: list[float] = []
        rank: dict[int, int] = defaultdict(int)
        before: dict[int, float] = {}
        for node, parent in enumerate(tree.parents):
            above = 1.0 if parent == ROOT else promise[parent]
            chance = above * self.rates.chance(self._place(tree, node, rank[parent]))
            promise.append(chance if tree.scheme is Scheme.CERTAIN else min(chance, before.get(parent, 1.0)))
            before[parent] = promise[node]
            rank[parent] += 1
        return promise

    def learn(self, tree: TokenTree, tokens: Sequence[int]) -> None:
        """Book where the tokens that were committed next went through a tree, forwarded or not."""
        node, guessed = ROOT, True
        for token in tokens:
            children = tree.children(node)
            for rank, child in enumerate(children):
                self.rates.book(self._place(tree, child, rank), tree.tokens[child] == token)
            found = tree.child(node, token)
            node = len(tree) if found is None else found
            guessed &= found is not None
        self._streak = min(self._streak + 1, LONGEST_STREAK) if guessed else 0

    def _place(self, tree: TokenTree, node: int, rank: int) -> Place:
        return Place(min(tree.depths[node], DEEP), rank, self._streak, tree.kinds[node])
