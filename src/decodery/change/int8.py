"""Weights in 8 bits: each row of a matrix as int8 and one float scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from decodery.change.lib.rounding import eight_bits, encode_graph, round_weights
from decodery.model.change import Change

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Int8(Change):
    """Rounds the matrices to 8 bits a number: another, slightly worse model, computed in float32.

    Each row of a matrix becomes int8 codes and one scale. Every backend decodes exactly the model of rounded weights.
    OpenVINO keeps the codes, in a quarter of the memory; torch keeps floats and gains nothing.
    """

    weights = True
    dtype = torch.float32

    def network(self, network: PreTrainedModel) -> None:
        round_weights(network, eight_bits, eight_bits)

    def graph(self, graph: Any) -> None:
        encode_graph(graph, (eight_bits,))
