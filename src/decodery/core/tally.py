"""One estimator of acceptance rates for planners and drafters."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from decodery.core.lore import Arrays, Entries
from decodery.core.values import Array

K = TypeVar("K", bound=Hashable)
MOST = 1e15
"""More observations than can be told apart from one more are no tally."""


@dataclass
class Tally(Entries[K, tuple[float, float]]):
    """How often something held, by key; where little was seen, a prior stands in.

    ``prior``: the rate assumed where nothing was seen, worth ``weight`` observations. ``keep``: what is kept of earlier
    observations of a key at each new one (1: all; 0.97: about the last 30 count). ``width``: the keys are tuples of so many
    whole numbers, and the tally can be kept in a file; 0: they may be anything, and it cannot.

    ``known``: key -> how much of it held, and how often it was looked at.
    """

    prior: float = 0.5
    weight: float = 6.0
    keep: float = 1.0
    width: int = 0

    def rate(self, key: K, prior: float | None = None) -> float:
        """The rate of a key; ``prior`` in place of the usual one."""
        hits, times = self.known.get(key, (0.0, 0.0))
        return (hits + self.weight * (self.prior if prior is None else prior)) / (times + self.weight)

    def book(self, key: K, hit: float) -> None:
        """One more observation: ``hit`` from 0 to 1."""
        with self.lock:
            hits, times = self.known.get(key, (0.0, 0.0))
            self.known[key] = self.keep * hits + hit, self.keep * times + 1

    def arrays(self) -> dict[str, Array]:
        if not self.width:
            return {}
        keys: list[Any] = list(self.known)
        return {
            "keys": np.array(keys, np.float64).reshape(-1, self.width),
            "seen": np.array([*self.known.values()], np.float64).reshape(-1, 2),
        }

    def read(self, arrays: Arrays) -> dict[K, tuple[float, float]]:
        keys, seen = arrays["keys"], arrays["seen"]
        if keys.shape[1:] != (self.width,) or seen.shape != (len(keys), 2):
            raise ValueError(f"not counts by keys of {self.width} numbers")
        if not np.isfinite(keys).all() or not all(0 <= hits <= times < MOST for hits, times in seen.tolist()):
            raise ValueError("not counts of what held, and of how often it was looked at")
        known: Any = {tuple(map(int, key)): tuple(row) for key, row in zip(keys.tolist(), seen.tolist(), strict=True)}
        return dict(known)

    def both(
        self, mine: tuple[float, float], since: tuple[float, float] | None, theirs: tuple[float, float] | None
    ) -> tuple[float, float]:
        """What was seen here since, added to theirs; where old observations fade, the rate seen here stands."""
        if self.keep < 1 or theirs is None:
            return mine
        hits, times = ((m - s) + t for m, s, t in zip(mine, since or (0.0, 0.0), theirs, strict=True))
        return min(max(hits, 0.0), times), times
