"""Weights in 8 bits: each row of a matrix as int8 and one float scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from decodery.core.values import Tensor
from decodery.model.change import Change

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST = 1 << 12
"""Matrices with fewer numbers stay as they are."""


@dataclass(frozen=True)
class Int8(Change):
    """Rounds the matrices to 8 bits a number: another, slightly worse model, computed in float32.

    Each row of a matrix becomes int8 codes and one scale. Every backend decodes exactly the model of rounded weights.
    OpenVINO keeps the codes, in a quarter of the memory; torch keeps floats and gains nothing.
    """

    weights = True
    dtype = torch.float32

    def network(self, network: PreTrainedModel) -> None:
        round_weights(network)

    def graph(self, graph: Any) -> None:
        encode_graph(graph)


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """Round the weights of all Linear and Embedding modules in place to what 8 bits hold; tied ones once."""
    seen: set[int] = set()
    for module in network.modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, (nn.Linear, nn.Embedding)) and weight.numel() >= LEAST and id(weight) not in seen:
            seen.add(id(weight))
            codes, scale = encode(weight)
            weight.copy_(codes * scale)


def encode(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``[rows, columns]`` -> int8 codes of that shape and float scales ``[rows, 1]``.

    Weights that were rounded before are met to one float ulp.
    """
    scale = weight.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / 127
    return (weight / scale).round().to(torch.int8), scale


def encode_graph(graph: Any) -> None:
    """Keep the matrices of an OpenVINO graph as int8 and scale, in the pattern that its CPU plugin multiplies directly."""
    from openvino import opset13 as ops

    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("MatMul", "Gather"):
            continue
        port = node.input(1 if kind == "MatMul" else 0)
        constant = port.get_source_output().get_node()
        if constant.get_type_name() != "Constant" or (kind == "MatMul" and not node.get_attributes()["transpose_b"]):
            continue
        data = constant.data
        if data.ndim != 2 or data.dtype != np.float32 or data.size < LEAST:
            continue
        codes, scale = encode(torch.from_numpy(np.array(data)))
        floats = ops.convert(ops.constant(codes.numpy()), np.float32)
        port.replace_source_output(ops.multiply(floats, ops.constant(scale.numpy())).output(0))
    graph.validate_nodes_and_infer_types()
