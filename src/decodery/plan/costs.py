"""Seconds of a forward by its number of new tokens: measured on this machine, corrected by real passes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

from decodery.core.tree import ROOT, TokenTree
from decodery.model.diskcache import kept
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.model.turn import forward

DRIFT = 0.1
"""Weight of a new observation in the averages of time."""

FADES = 0.99
"""What is left, at the next pass, of the weight of the passes seen."""

WARMUP = 4
"""Passes of each size before any is timed."""

FORMAT = 5
"""Part of what identifies kept costs; raise it when they change their meaning."""


class Curve(NamedTuple):
    """What a forward costs.

    ``table``: seconds for a forward of n tokens when the previous forward also had n. ``switch``: extra seconds when it did
    not (a backend that prepares itself for each size).
    """

    table: dict[int, float]
    switch: float


@dataclass
class Costs:
    """A curve that every real pass corrects.

    ``switch`` comes on top where the forward before had another number of tokens (``after``; None: not known).
    """

    table: dict[int, float]
    switch: float = 0.0
    idle: int = 0
    """Passes since one with drafts."""

    def __post_init__(self) -> None:
        self.table = dict(sorted(self.table.items()))
        self._seen = dict.fromkeys(self.table, 0.0)
        """How many passes of about this size were seen, the latest counting most."""

    def __call__(self, n: int, after: int | None = None) -> float:
        """Straight lines between and beyond the sizes measured."""
        extra = self.switch if after not in (None, n) else 0.0
        if n in self.table:
            return self.table[n] + extra
        sizes = list(self.table)
        high = next((i for i, size in enumerate(sizes) if size > n), len(sizes) - 1)
        high = max(high, 1)
        a, b = sizes[high - 1], sizes[high]
        return self.table[a] + (self.table[b] - self.table[a]) * (n - a) / (b - a) + extra

    def correct(self, n: int, seconds: float, after: int | None = None) -> None:
        """A forward of ``n`` tokens took this long: the nearest size moves, and with it those that no pass has corrected.

        They were measured together, perhaps while the machine was busy: then all are wrong alike. What a pass took longer
        after another number of tokens is what the change cost, and says nothing of the size.
        """
        if after not in (None, n):  # graphs of fixed sizes, once they are there, take away what a change costs
            extra = min(max(0.0, seconds - self(n)), self(n))  # a pass that was disturbed teaches little
            self.switch += DRIFT * (extra - self.switch)
            if extra:
                return
        near = min(self.table, key=lambda size: abs(size - n))
        ratio = min(max(seconds / self(n), 0.5), 2.0)
        move = 1 + max(DRIFT, 1 / (2 + self._seen[near])) * (ratio - 1)
        for size, seen in self._seen.items():
            self.table[size] *= move if size == near else move ** (1 / (1 + seen))
            self._seen[size] = seen * FADES
        self._seen[near] += 1
        for size in self.table:
            bound = max if size > near else min
            self.table[size] = bound(self.table[size], self.table[near])


def cost_curve(model: Model, sizes: Sequence[int] = (1, 4, 8, 16), cached: int = 64, repeats: int = 5) -> Curve:
    """Measure forwards of n new tokens after ``cached`` ones: the quickest of interleaved repeats, two of a size in a row.

    Whatever else the machine does makes a forward slower, never quicker.
    """
    session = warm(model, cached)
    fresh: dict[int, list[float]] = {n: [] for n in sizes}
    steady: dict[int, list[float]] = {n: [] for n in sizes}

    def timed(n: int) -> float:
        tree = _tree(session, n - 1)
        start = perf_counter()
        forward(session, tree)
        seconds = perf_counter() - start
        session.rewind(len(session.tokens) - 1)
        session.commit([session.tokens[-1]])
        return seconds

    session.arena.prepare()  # the costs are those of every pass but a process's first few hundred
    for n in (n for n in sizes for _ in range(WARMUP)):
        timed(n)
    for n in (sizes[0], *list(sizes) * repeats):
        for seconds in (fresh[n], steady[n]):
            seconds.append(timed(n))
    table = {n: min(times) for n, times in steady.items()}
    return Curve(table, max(0.0, statistics.median(min(fresh[n]) - table[n] for n in sizes)))


def calibrated(model: Model) -> Curve:
    """``cost_curve`` for the planner: measured in about a second, and kept for the next start."""
    layers = model.variant.layers and sorted(model.variant.layers, key=str)
    kind = (model.backend, bool(model.linear), model.facts.kind)
    facts = (FORMAT, *kind, model.facts.parameters, model.dtype, model.device, layers)
    table, switch = kept("costs", facts, lambda: cost_curve(model, (1, 2, 4, 8, 16)))
    return Curve({int(n): float(seconds) for n, seconds in table.items()}, float(switch))


def warm(model: Model, cached: int) -> Session:
    """A session with some tokens in its cache."""
    cached = min(cached, model.context // 4)
    words = [i * 7 % model.vocab for i in range(1, 17)]
    session = model.session((words * (cached // len(words) + 1))[:cached])
    forward(session)
    session.commit(words[:1])
    return session


def _tree(session: Session, drafts: int) -> TokenTree:
    """A caterpillar: half of the drafts deep, half beside them."""
    tree, node = TokenTree(), ROOT
    for i in range(drafts):
        child = tree.add(session.tokens[i % 16], node if i % 2 == 0 else tree.parents[-1] if len(tree) else ROOT)
        if i % 2 == 0:
            node = child
    return tree
