"""Guides whose numbers are very small or very large: their laws are the limits, never infinite or not a number."""

from __future__ import annotations

import math

import torch

from decodery.core.values import Tensor

LARGEST = 1e250
"""Beyond this number, or its inverse, a factor changes no law any more; products with it still fit into float64."""
FAR = 1e30
"""A row whose best logit is further from 0 is moved, so that guides after this one have room."""


def ordinary(number: float) -> bool:
    """Whether logits may be multiplied and divided by this number as they are."""
    return 1e-6 <= abs(number) <= 1e6


def moderate(number: float) -> bool:
    """Whether this number may be added to logits as they are."""
    return abs(number) <= 1e6


def within(number: float) -> float:
    """This number, but not so large or small that products in float64 overflow."""
    return math.copysign(min(max(abs(number), 1 / LARGEST), LARGEST), number)


def fit(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits in float64 -> the same laws in ``dtype``: rows out of its range are moved so that their best is 0."""
    best = exact.amax(-1, keepdim=True)
    moved = torch.where((best.abs() > FAR) & best.isfinite(), exact - best, exact)
    return moved.to(dtype)
