"""The search for what a draft can do without: random sets, and now and then the most promising by a Gaussian process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from decodery.core.lore import Arrays, Lore
from decodery.core.values import Array

Floats = npt.NDArray[np.float64]

POOL = 256
"""Sets among which the process chooses: half of them random, half one exchange away from the best."""

KEPT = 2000
"""Sets kept where searches of several processes come together, those of the highest scores."""

Trial = tuple[frozenset[int], float]
"""A set and its score."""

KAPPA, NOISE = 2.5, 1e-2
"""How much what is uncertain counts, and the variance of a score, both as published."""


@dataclass
class SkipSearch(Lore):
    """Sets of ``len(best)`` units out of ``units``, and how they scored; ``best`` is scored first.

    Every ``bayes``-th set maximises an upper confidence bound over ``POOL`` sets (the published optimiser searches a cube
    of real numbers and takes the largest). Remembers each set tried: ``units`` bytes and a score; saved, 8 bytes for each
    unit of the set and 8 for the score.
    """

    units: int
    best: frozenset[int]
    bayes: int = 25
    score: float = -1.0
    idle: int = 0
    """Candidates since the best was found."""
    tried: list[frozenset[int]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def propose(self, noise: float) -> frozenset[int]:
        """A set to score. ``noise`` and how many were tried decide all that is random in it: a search that outlives requests
        goes on where they all have the same seed."""
        with self.lock:
            return self._next(noise) if self.tried else self.best

    def learn(self, candidate: frozenset[int], score: float) -> None:
        """Adopt what is strictly better."""
        with self.lock:
            self.tried.append(candidate)
            self.scores.append(score)
            self.idle += 1
            if score > self.score:
                self.best, self.score, self.idle = candidate, score, 0

    @property
    def kind(self) -> str:
        return f"{len(self.best)} of {self.units}"

    def arrays(self) -> dict[str, Array]:
        sets = np.array([sorted(chosen) for chosen in self.tried], np.float64).reshape(-1, len(self.best))
        return {"sets": sets, "scores": np.array(self.scores, np.float64)}

    def merge(self, theirs: Arrays, since: Arrays) -> None:
        known = self._trials(since)
        gained = [trial for trial in self._trials(theirs) if trial not in known]
        trials = [*gained, *zip(self.tried, self.scores, strict=True)]
        highest = sorted(range(len(trials)), key=lambda i: -trials[i][1])[:KEPT]
        self.tried, self.scores, self.score, self.idle = [], [], -1.0, 0
        for i in sorted(highest):
            self.learn(*trials[i])

    def _trials(self, arrays: Arrays) -> list[Trial]:
        if not arrays:
            return []
        sets, scores = arrays["sets"].tolist(), arrays["scores"].tolist()
        trials = [(frozenset(map(int, chosen)), score) for chosen, score in zip(sets, scores, strict=True)]
        if not all(len(chosen) == len(self.best) and 0 <= score <= 1 for chosen, score in trials):
            raise ValueError(f"not sets of {len(self.best)} units and shares of tokens")
        if not set(chain.from_iterable(sets)) <= set(range(self.units)):
            raise ValueError(f"there are {self.units} units")
        return trials

    def _next(self, noise: float) -> frozenset[int]:
        random = np.random.default_rng([int(noise * 2**53), len(self.tried)])
        if len(self.tried) % self.bayes:
            return self._random(random)
        pool = [self._random(random) if i % 2 else self._exchange(random) for i in range(POOL)]
        return pool[int(self._bound(pool).argmax())]

    def _random(self, random: np.random.Generator) -> frozenset[int]:
        return frozenset(random.permutation(self.units)[: len(self.best)].tolist())

    def _exchange(self, random: np.random.Generator) -> frozenset[int]:
        out = set(range(self.units)) - self.best
        if not out or not self.best:
            return self.best
        gone, come = (random.choice(sorted(units)) for units in (self.best, out))
        return self.best - {int(gone)} | {int(come)}

    def _bound(self, pool: list[frozenset[int]]) -> Floats:
        """Mean and ``KAPPA`` deviations of the process at each set of the pool."""
        known, asked = self._vectors(self.tried), self._vectors(pool)
        scores = np.array(self.scores)
        spread = max(float(scores.std()), 1e-6)
        near = self._kernel(asked, known)
        inner = np.linalg.inv(self._kernel(known, known) + NOISE * np.eye(len(known)))
        mean = near @ inner @ (scores - scores.mean()) / spread
        variance = 1.0 - np.einsum("ij,jk,ik->i", near, inner, near, optimize=True)
        bound: Floats = mean + KAPPA * np.sqrt(variance.clip(min=0.0))
        return bound

    def _vectors(self, sets: Iterable[frozenset[int]]) -> Floats:
        return np.array([[unit in chosen for unit in range(self.units)] for chosen in sets], dtype=np.float64)

    def _kernel(self, a: Floats, b: Floats) -> Floats:
        """Gaussian in the number of exchanges between two sets; wide, for what units cost is nearly a sum."""
        apart = a.sum(1)[:, None] + b.sum(1) - 2 * a @ b.T
        close: Floats = np.exp(-apart / (2 * max(len(self.best), 1)))
        return close
