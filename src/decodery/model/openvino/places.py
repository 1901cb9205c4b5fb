"""The places of a converted graph where hidden states are read, and graphs that run otherwise than the whole.

The conversion makes the input of the first layer, the output of each layer and the state after the last norm outputs of the
graph, which cost nothing where they are taken off again. Between two of them lies one layer, so a layer is left out by
giving its readers what it would have read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import openvino
from openvino import opset13 as ops

from decodery.model.openvino.attention import PAGED, Unpaged

FIRST = "hidden.input"
FINAL = "hidden.final"
RESUMED = "resumed"
"""The input for states that take the place of the embeddings."""


class Cut(NamedTuple):
    """What a graph computes besides logits, and how.

    ``places``: the outputs for hidden states that it has. ``layers``: those that run (None: all). ``resumes``: the first that
    runs receives states that are given, and not the embeddings.
    """

    places: frozenset[str] = frozenset()
    layers: frozenset[int] | None = None
    resumes: bool = False

    def serves(self, other: Cut) -> bool:
        """Whether a graph of this cut can run the passes of the other one."""
        return other.places <= self.places and (self.layers, self.resumes) == (other.layers, other.resumes)


WHOLE = Cut()


def after(layer: int) -> str:
    """The name of the place behind a layer."""
    return f"hidden.{layer}"


def names(depth: int) -> list[str]:
    """All places of a network of so many layers, in its order."""
    return [FIRST, *map(after, range(depth)), FINAL]


def offers(graph: Any, depth: int) -> bool:
    """Whether a graph has all places."""
    return set(names(depth)) <= _results(graph).keys()


def everywhere(depth: int) -> Cut:
    """All hidden states."""
    return Cut(frozenset(names(depth)))


def carve(graph: Any, cut: Cut, depth: int) -> None:
    """Change a graph with paged attention, in place, into what ``cut`` says; inputs that nothing reads any more go.

    Raises ``Unpaged`` where a layer that is left out is read by another one all the same.
    """
    results = _results(graph)
    if cut.layers is not None or cut.resumes:
        running = range(depth) if cut.layers is None else cut.layers
        ports = {name: result.input_value(0) for name, result in results.items()}
        current = ports[FIRST]
        if cut.resumes:
            size = current.get_partial_shape()[2]
            given = ops.parameter(openvino.PartialShape([1, -1, size]), openvino.Type.f32, name=RESUMED)
            given.output(0).get_tensor().set_names({RESUMED})
            graph.add_parameters([given])
            _redirect(current, given.output(0))
            current = given.output(0)
        for layer in range(depth):
            if layer in running:
                current = ports[after(layer)]
            else:
                _redirect(ports[after(layer)], current)
    for name, result in results.items():
        if name not in cut.places:
            graph.remove_result(result)
    nodes = graph.get_ordered_ops()
    attending = sum(node.get_type_name() == PAGED for node in nodes)
    if cut.layers is not None and attending != len(cut.layers):
        raise Unpaged(f"{attending} layers that run where {len(cut.layers)} should")
    read = {port.get_node().get_friendly_name() for node in nodes for port in node.input_values()}
    for unused in list(graph.get_parameters()):
        if unused.get_friendly_name() not in read:
            graph.remove_parameter(unused)
    graph.validate_nodes_and_infer_types()


def strip(graph: Any) -> None:
    """Take all places off a graph, in place."""
    for result in _results(graph).values():
        graph.remove_result(result)


def _results(graph: Any) -> dict[str, Any]:
    """Place -> the output of the graph that it is."""
    found = {name: result for result in graph.get_results() for name in result.output(0).get_names()}
    return {name: result for name, result in found.items() if name.startswith("hidden.")}


def _redirect(source: Any, target: Any) -> None:
    for reader in source.get_target_inputs():
        reader.replace_source_output(target)
