"""Seconds of a forward by its number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

DRIFT = 0.1
"""Weight of a new observation in the averages of time."""


@dataclass
class Costs:
    """Seconds of a forward by its tokens: measured for a few sizes, corrected by every real step.

    ``switch`` comes on top where the forward before had another number of tokens (``after``; None: not known).
    """

    table: dict[int, float]
    switch: float = 0.0

    def __post_init__(self) -> None:
        self.table = dict(sorted(self.table.items()))

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
        """A forward of ``n`` tokens took this long: the nearest size moves, and the others as far as order demands."""
        near = min(self.table, key=lambda size: abs(size - n))
        ratio = min(max(seconds / self(n, after), 0.5), 2.0)
        self.table[near] *= 1 + DRIFT * (ratio - 1)
        for size in self.table:
            bound = max if size > near else min
            self.table[size] = bound(self.table[size], self.table[near])
