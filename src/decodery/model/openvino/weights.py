"""An OpenVINO graph keeps its matrices as the model's files do: the codes of a GGUF file, or numbers of 16 bits.

The arithmetic stays float32. A small forward waits for its weights, so fewer bytes are more tokens a second. A matrix is
replaced only where nothing is lost by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops

from decodery.model.openvino.codes import Coded, Form
from decodery.model.openvino.stored import Stored, digests

LOG = logging.getLogger(__name__)

LEAST = 1 << 12
"""Matrices with fewer numbers stay as they are."""

HALVES = (torch.float16, torch.bfloat16)


def keep_codes(graph: Any, stored: Stored) -> int:
    """Replace, in place, the matrices of an OpenVINO graph that are in the file by its codes, scales and zeros.

    Returns how many matrices were replaced.
    """

    def node(matrix: Any) -> Any:
        found = stored.find(digests(matrix))
        return found and decoded(*found, matrix.shape)

    replaced, left = replace_matrices(graph, node)
    if left:
        kinds = (
            f"{', '.join(stored.others)} cannot be kept as codes" if stored.others else "rows differ from the file's"
        )
        LOG.info("%s keeps float32: %d of %d matrices (%s)", stored.name, left, replaced + left, kinds)
    return replaced


def keep_halves(graph: Any, dtype: torch.dtype | None) -> None:
    """Keep, in place, the matrices of an OpenVINO graph in ``dtype``, if that has 16 bits, where all numbers are its own."""
    if dtype not in HALVES:
        return

    def node(matrix: Any) -> Any:
        floats = torch.from_numpy(matrix)
        halves = floats.to(dtype)
        return _widened(halves) if torch.equal(halves.float(), floats) else None

    replace_matrices(graph, node)


def replace_matrices(graph: Any, node: Callable[[Any], Any]) -> tuple[int, int]:
    """Put, in place, the node that ``node`` gives for a matrix in its stead; None leaves it as it is.

    A matrix that is read twice (tied embeddings) is kept once. Returns how many matrices were replaced, and how many left.
    """
    made: dict[tuple[tuple[int, ...], bytes], Any] = {}
    for port, matrix in _matrices(graph):
        whole = matrix.shape, blake2b(matrix).digest()
        if whole not in made:
            made[whole] = node(matrix)
        if made[whole] is not None:
            port.replace_source_output(made[whole].output(0))
    graph.validate_nodes_and_infer_types()
    left = sum(one is None for one in made.values())
    return len(made) - left, left


def _matrices(graph: Any) -> Iterator[tuple[Any, Any]]:
    """Where constant matrices go in, with their numbers: ``[outputs, inputs]`` of products, embeddings."""
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Gather" or (kind == "MatMul" and node.get_attributes()["transpose_b"]):
            port = node.input(1 if kind == "MatMul" else 0)
            constant = port.get_source_output().get_node()
            if constant.get_type_name() == "Constant" and constant.get_element_type() == openvino.Type.f32:
                data = constant.data
                if data.ndim == 2 and data.size >= LEAST:
                    yield port, np.array(data)


def decoded(form: Form, coded: Coded, shape: tuple[int, ...]) -> Any:
    """The nodes that the CPU plugin takes together with a product, so that it multiplies codes."""
    if form.bits == 4:
        flat = coded.codes.reshape(-1)
        packed = np.ascontiguousarray(flat[0::2] | (flat[1::2] << 4))
        codes = _constant(packed, coded.codes.shape, openvino.Type.u4)
    else:
        codes = ops.constant(coded.codes)
    values = ops.convert(codes, "f32")
    if coded.zero is not None:
        values = ops.subtract(values, ops.constant(coded.zero))
    return ops.reshape(ops.multiply(values, ops.constant(coded.scale)), ops.constant(np.array(shape, np.int64)), False)


def _widened(halves: torch.Tensor) -> Any:
    kind = openvino.Type.bf16 if halves.dtype == torch.bfloat16 else openvino.Type.f16
    return ops.convert(_constant(halves.view(torch.uint16).numpy(), tuple(halves.shape), kind), "f32")


def _constant(bits: Any, shape: tuple[int, ...], kind: Any) -> Any:
    """A constant of a type that numpy lacks. It has a copy of the bits: one that shares them would not keep them alive."""
    return ops.constant(openvino.Tensor(bits, openvino.Shape(shape), kind), shared_memory=False)
