"""One token under a constraint that has no mask, and an unbiased estimate of how much of the law it allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from decodery.core.chooser import Chooser
from decodery.core.values import Tensor

SURE = 2 / 3
"""A law with so likely a token is drawn from with replacement: mostly the same token comes twice and is asked about once."""
_PLACES, _SHARES = np.polynomial.legendre.leggauss(12)
NODES = np.exp(-np.concatenate([_PLACES + 1 + 2 * panel for panel in range(23)]))
"""Where the integral over u = 1 - s in (0, 1) is taken: evenly in -log u, for its factors are steps on that scale."""
SHARES = np.tile(_SHARES, 23) * NODES


class Draw(NamedTuple):
    """A drawn token (None: nothing is allowed) and the log of its weight (nats)."""

    token: int | None
    log_weight: float


DEAD = Draw(None, -math.inf)


class Urn:
    """Tokens with their chances ``[V]`` (float64), drawn without replacement.

    A draw picks a block of tokens, then a token of it, and so takes the root of V steps; few tokens are one block.
    """

    def __init__(self, p: Tensor) -> None:
        self._size = len(p) if len(p) <= 512 else math.isqrt(len(p)) + 1
        self._blocks = torch.zeros(-(-len(p) // self._size), self._size, dtype=torch.float64)
        self._blocks.view(-1)[: len(p)] = p
        self._masses = self._blocks.sum(1)

    @property
    def mass(self) -> float:
        """What is left."""
        return float(self._masses.sum())

    def pick(self, rng: Chooser) -> int:
        """A token, which stays in the urn."""
        block = rng.pick(self._masses) if len(self._masses) > 1 else 0
        return block * self._size + rng.pick(self._blocks[block])

    def take(self, token: int) -> float:
        """Take a token out; returns its chance."""
        block, place = divmod(token, self._size)
        chance = float(self._blocks[block, place])
        self._blocks[block, place] = 0.0
        self._masses[block] = self._blocks[block].sum()
        return chance


def awrs(p: Tensor, accept: Callable[[int], bool], rng: Chooser, accepts: int = 2, least: float = 0.0) -> Draw:
    """Draw from ``p`` until ``accepts`` tokens were allowed; the first of them is the token.

    ``p``: ``[V]`` float64, sums to one. ``accept`` is asked once about each token drawn. Over the randomness,
    E[weight * f(token)] = sum of p(x) f(x) over the allowed x, for every f. Tokens that were refused are not drawn again.
    With ``least`` above 0, a law of which less than that is left counts as refused: nothing is drawn from its last tokens, and
    the sum is wrong by no more than ``least``. As in Lipkin et al. 2025, section 3; which of the two estimators runs depends
    on ``p`` alone.
    """
    if accepts == 2 and float(p.max()) < SURE:
        return without_replacement(p, accept, rng, least)
    return with_replacement(p, accept, rng, accepts, least)


def without_replacement(p: Tensor, accept: Callable[[int], bool], rng: Chooser, least: float = 0.0) -> Draw:
    """Two draws at least: E[f] = q f(x) + (1 - q) E[f | not x], applied to each token, and a single draw for the tail."""
    urn, log_left = Urn(p), 0.0
    while (mass := urn.mass) > least:
        token = urn.pick(rng)
        q = urn.take(token) / mass
        left = urn.mass
        if not accept(token):
            log_left += math.log(left / mass) if left > 0 else -math.inf
        elif left <= 0 or accept(urn.pick(rng)):
            return Draw(token, log_left)
        else:
            return Draw(token, log_left + math.log(q))
    return DEAD


def with_replacement(p: Tensor, accept: Callable[[int], bool], rng: Chooser, accepts: int, least: float = 0.0) -> Draw:
    """The weight (accepts - 1) / (draws - 1) of negative binomial sampling, averaged over how often tokens that were
    refused would have been drawn again.

    With u = 1 - s, that mean is (accepts - 1) times the integral of s^(refused + accepts - 2) over s from 0 to 1, with a
    factor l / (l + (1 - l) u) for each draw, where l is the mass not yet refused. This is what the paper's phantom
    rejections estimate by simulation, without their noise.
    """
    urn = Urn(p)
    whole = urn.mass
    asked: set[int] = set()
    first: int | None = None
    refused, found = 0, 0
    log_factors = np.zeros_like(NODES)
    while (left := urn.mass / whole) > least or first is not None:
        token = urn.pick(rng)
        log_factors -= np.log1p((1 - left) / left * NODES)
        if token in asked or accept(token):
            asked.add(token)
            first = token if first is None else first
            found += 1
            if found == accepts:
                break
        else:
            urn.take(token)
            refused += 1
    if first is None:
        return DEAD
    if not refused:
        return Draw(first, 0.0)
    logs = (refused + accepts - 2) * np.log1p(-NODES) + log_factors
    return Draw(first, math.log((accepts - 1) * float(SHARES @ np.exp(logs))))


def masked(p: Tensor, mask: Tensor | None, rng: Chooser) -> Draw:
    """The same where the mask is known: the weight is the allowed mass itself."""
    allowed = p if mask is None else p.where(mask.to(p.device), torch.zeros_like(p))
    mass = float(allowed.sum())
    return Draw(rng.pick(allowed), math.log(mass)) if mass > 0 else DEAD
