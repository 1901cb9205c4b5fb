"""One estimator of acceptance rates for planners and drafters."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from decodery.core.values import Array

K = TypeVar("K", bound=Hashable)


@dataclass
class Tally(Generic[K]):
    """How often something held, by key; where little was seen, a prior stands in.

    ``prior``: the rate assumed where nothing was seen, worth ``weight`` observations. ``keep``: what is kept of earlier
    observations of a key at each new one (1: all; 0.97: about the last 30 count).
    """

    prior: float = 0.5
    weight: float = 6.0
    keep: float = 1.0
    seen: dict[K, tuple[float, float]] = field(default_factory=dict)
    """Key -> how much of it held, and how often it was looked at."""

    def rate(self, key: K, prior: float | None = None) -> float:
        """The rate of a key; ``prior`` in place of the usual one."""
        hits, times = self.seen.get(key, (0.0, 0.0))
        return (hits + self.weight * (self.prior if prior is None else prior)) / (times + self.weight)

    def book(self, key: K, hit: float) -> None:
        """One more observation: ``hit`` from 0 to 1."""
        hits, times = self.seen.get(key, (0.0, 0.0))
        self.seen[key] = self.keep * hits + hit, self.keep * times + 1

    def arrays(self) -> dict[str, Array]:
        """What was seen, for a file; the keys must be tuples of numbers of one length."""
        width = len(next(iter(self.seen), ()))  # type: ignore[arg-type]
        keys = np.array(list(self.seen), np.float64).reshape(len(self.seen), width)
        return {"keys": keys, "seen": np.array(list(self.seen.values()), np.float64).reshape(-1, 2)}
