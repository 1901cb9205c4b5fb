"""The matrix of token triples that ADED walks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decodery.core.lore import Arrays, Entries, filled
from decodery.core.values import NO_TOKEN, Array

Context = tuple[int, ...]
"""The last two tokens, or the last one."""


@dataclass
class Triples(Entries[Context, dict[int, float]]):
    """The weights of the ``k`` likeliest tokens after each context; the ``contexts`` learnt last are kept."""

    k: int
    contexts: int

    def after(self, words: Sequence[int]) -> dict[int, float]:
        """The weights after these tokens; where the pair is new, after the last of them."""
        with self.lock:  # while a context is learnt it is not in the table
            return self.known.get(tuple(words)) or self.known.get((words[-1],), {})

    def learn(self, words: Sequence[int], chances: Mapping[int, float], rate: float) -> None:
        """M[a, b] <- (1 - rate) M[a, b] + rate p, the k heaviest kept; the context learnt longest ago makes room."""
        with self.lock:
            for context in dict.fromkeys((tuple(words), (words[-1],))):
                known = self.known.pop(context, None)
                if known is None:
                    mixed = dict(chances)
                else:
                    mixed = {token: (1 - rate) * weight for token, weight in known.items()}
                    for token, chance in chances.items():
                        mixed[token] = mixed.get(token, 0.0) + rate * chance
                self.known[context] = self._heaviest(mixed)
                if len(self.known) > self.contexts:
                    del self.known[next(iter(self.known))]

    def arrays(self) -> dict[str, Array]:
        rows = self.known.values()
        weights = filled([row.values() for row in rows], self.k, np.float64)
        return {"words": filled(self.known.keys(), 2), "tokens": filled(rows, self.k), "weights": weights}

    def read(self, arrays: Arrays) -> dict[Context, dict[int, float]]:
        known = {}
        for words, tokens, weights in zip(*(arrays[n].tolist() for n in ("words", "tokens", "weights")), strict=True):
            row = {t: w for t, w in zip(tokens, weights, strict=True) if t != NO_TOKEN}
            if not row or not all(0 < weight < math.inf for weight in row.values()):
                raise ValueError("a context has no tokens, or weights that are not positive")
            known[tuple(t for t in words if t != NO_TOKEN)] = self._heaviest(row)
        return known

    def fit(self, known: dict[Context, dict[int, float]]) -> dict[Context, dict[int, float]]:
        return dict(list(known.items())[-self.contexts :])

    def _heaviest(self, weights: dict[int, float]) -> dict[int, float]:
        top = weights if len(weights) <= self.k else heapq.nlargest(self.k, weights, weights.__getitem__)
        return {token: weights[token] for token in top}
