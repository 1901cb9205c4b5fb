"""Which particles go on: each with as many heirs as its weight says, on average exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch

from decodery.core.chooser import Chooser

Resampling = Callable[[Sequence[float], Chooser], list[int]]
"""Weights that sum to one -> for each new particle the number of its parent."""


def log_mean(logs: Sequence[float]) -> float:
    """The log of the mean of these numbers, given their logs."""
    return float(torch.tensor(logs, dtype=torch.float64).logsumexp(0)) - math.log(len(logs))


def normalised(logs: Sequence[float]) -> list[float]:
    """Weights that sum to one, from their logs, of which one at least is finite."""
    weights: list[float] = torch.tensor(logs, dtype=torch.float64).softmax(0).tolist()
    return weights


def effective(weights: Sequence[float]) -> float:
    """The effective sample size: of so many particles with equal weights."""
    return sum(weights) ** 2 / sum(weight * weight for weight in weights)


def multinomial(weights: Sequence[float], rng: Chooser) -> list[int]:
    """Independent draws."""
    p = torch.tensor(weights, dtype=torch.float64)
    return [rng.pick(p) for _ in weights]


def stratified(weights: Sequence[float], rng: Chooser) -> list[int]:
    """One draw from each of n equal parts of the unit interval, on which the weights lie end to end."""
    bounds = _bounds(weights)
    return [
        rng.pick(
            torch.tensor(
                [max(0.0, min(end, part + 1) - max(start, part)) for start, end in bounds], dtype=torch.float64
            )
        )
        for part in range(len(weights))
    ]


def systematic(weights: Sequence[float], rng: Chooser) -> list[int]:
    """One number u between 0 and 1 for all: the points u, u + 1, ... on weights that lie end to end over n.

    Of u only the interval between two steps of the outcome is drawn, so all outcomes can be enumerated.
    """
    bounds = _bounds(weights)
    steps = sorted({0.0, 1.0, *(end % 1 for _, end in bounds[:-1])})
    place = rng.pick(torch.tensor([b - a for a, b in pairwise(steps)], dtype=torch.float64))
    u = (steps[place] + steps[place + 1]) / 2
    return [next(i for i, (_, end) in enumerate(bounds) if end > u + part) for part in range(len(weights))]


def residual(weights: Sequence[float], rng: Chooser) -> list[int]:
    """The whole part of n times each weight for certain, the rest by independent draws from what is over."""
    n = len(weights)
    sure = [math.floor(n * weight + 1e-9) for weight in weights]
    over = torch.tensor(
        [max(n * weight - count, 0.0) for weight, count in zip(weights, sure, strict=True)], dtype=torch.float64
    )
    parents = [i for i, count in enumerate(sure) for _ in range(count)]
    return parents + [rng.pick(over) for _ in range(n - len(parents))]


def _bounds(weights: Sequence[float]) -> list[tuple[float, float]]:
    """Where each weight begins and ends if they lie end to end over n; the last positive one ends at n exactly."""
    n, total, bounds = len(weights), 0.0, []
    last = max(i for i, weight in enumerate(weights) if weight > 0)
    for i, weight in enumerate(weights):
        end = float(n) if i >= last else total + n * weight
        bounds.append((total, end))
        total = end
    return bounds


METHODS: Mapping[str, Resampling] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}
