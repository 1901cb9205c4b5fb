"""Products that read one input become one: query, key and value, gate and up.

One wide product streams its weights better than several narrow ones, keeps one packed copy of them, and leaves fewer nodes
to prepare when a forward has another size than the one before. Each output is computed from the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from openvino import opset13 as ops


def join_products(graph: Any, form: Callable[[Any], object] = np.ndim) -> None:
    """Replace the MatMuls of an OpenVINO graph that multiply one tensor by constant matrices of one form, in place."""
    groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul" and node.input_value(1).get_node().get_type_name() == "Constant":
            source, facts = node.input_value(0), node.get_attributes()
            matrix = node.input_value(1).get_node().data
            kind = matrix.ndim, form(matrix)
            groups[source.get_node().get_name(), source.get_index(), kind, *sorted(facts.items())].append(node)
    for nodes in groups.values():
        if len(nodes) > 1:
            _join(nodes)
    graph.validate_nodes_and_infer_types()


def _join(nodes: list[Any]) -> None:
    facts = nodes[0].get_attributes()
    matrices = [node.input_value(1).get_node().data for node in nodes]
    axis = matrices[0].ndim - (2 if facts["transpose_b"] else 1)
    weight = ops.constant(np.concatenate(matrices, axis))
    product = ops.matmul(nodes[0].input_value(0), weight, facts["transpose_a"], facts["transpose_b"])
    widths = ops.constant(np.array([matrix.shape[axis] for matrix in matrices], np.int64))
    parts = ops.variadic_split(product, ops.constant(np.int64(-1)), widths)
    for part, node in zip(parts.outputs(), nodes, strict=True):
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(part)


def fold_shapes(graph: Any) -> None:
    """Make constants, in place, of all parts of shapes that never change.

    The tracer shares what it computes of a shape among layers, and a layer that is left out must leave nothing behind.
    """
    for node in graph.get_ordered_ops():
        for port in node.outputs():
            fold_shape(port)
    graph.validate_nodes_and_infer_types()


def fold_shape(port: Any) -> None:
    """What the graph asks this tensor's shape for becomes a constant, where that is always the same."""
    shape = port.get_partial_shape()
    readers = (reader.get_node() for reader in port.get_target_inputs())
    asking = [node for node in readers if node.get_type_name() == "ShapeOf"]
    for node in (reader.get_node() for one in asking for reader in one.output(0).get_target_inputs()):
        axes = node.input_value(1).get_node() if node.get_type_name() == "Gather" else node
        if axes.get_type_name() != "Constant":
            continue
        if all(shape[int(axis)].is_static for axis in np.array(axes.data).reshape(-1)):
            known = np.array([dimension.get_length() if dimension.is_static else -1 for dimension in shape])
            constant = ops.constant(known[np.array(axes.data)], node.get_output_element_type(0))
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(constant.output(0))
