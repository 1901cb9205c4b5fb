"""Weights in 4 bits: groups of 32 numbers as codes, a float scale and a float zero, with a searched range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from decodery.change.lib.rounding import Rounded, eight_bits, encode_graph, round_weights
from decodery.core.values import Tensor
from decodery.model.change import Change

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZE = 32
"""Numbers of a row that share a scale and a zero."""
TOP = 15
SHRUNK = tuple(1 - 0.04 * step for step in range(11))
"""The parts of a group's range that are tried: numbers outside are cut off, those inside get a finer grid."""


@dataclass(frozen=True)
class Int4(Change):
    """Rounds the matrices to 4 bits a number: another, worse model, computed in float32.

    Each group of 32 numbers of a row becomes codes from 0 to 15, a scale and a zero; of eleven ranges, the one with the least
    squared error is taken. Embeddings, the head, and matrices whose rows are no multiple of 32 get 8 bits, as ``int8`` rounds
    them. Every backend decodes exactly the model of rounded weights. OpenVINO keeps the codes, in about a sixth of
    the memory; torch keeps floats and gains nothing.
    """

    weights = True
    dtype = torch.float32

    def network(self, network: PreTrainedModel) -> None:
        round_weights(network, four_bits, eight_bits)

    def graph(self, graph: Any) -> None:
        encode_graph(graph, (four_bits, eight_bits))


def four_bits(weight: Tensor) -> Rounded:
    """Groups of ``SIZE`` numbers as codes, scale and zero.

    Every range ends at codes that are used, so what was rounded before has its own range again, and no error.
    """
    rows, columns = weight.shape
    if columns % SIZE:
        return eight_bits(weight)
    groups = weight.float().reshape(rows, -1, SIZE)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    best = _grid(groups, low, high)
    least = _error(best, groups)
    for share in SHRUNK[1:]:
        cut = (high - low) * (1 - share) / 2
        tried = _grid(groups, low + cut, high - cut)
        error = _error(tried, groups)
        better = error < least
        least = torch.where(better, error, least)
        best = Rounded(4, *(torch.where(better, new, old) for new, old in zip(tried[1:], best[1:], strict=True)))  # type: ignore[arg-type]
    return best


def _grid(groups: Tensor, low: Tensor, high: Tensor) -> Rounded:
    scale = (high - low) / TOP
    scale = torch.where(scale > 0, scale, 1.0)  # a group of one value
    codes = ((groups - low) / scale).round().clamp(0, TOP)
    return Rounded(4, codes.to(torch.uint8), scale, -low / scale)


def _error(rounded: Rounded, groups: Tensor) -> Tensor:
    return (rounded.values().reshape(groups.shape) - groups).square().sum(2, keepdim=True)
