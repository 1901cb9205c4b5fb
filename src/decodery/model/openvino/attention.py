"""The attention of a converted graph, replaced by paged attention over cache tensors that the caller owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import opset13 as ops

from decodery.model.facts import Reach
from decodery.model.openvino.fuse import fold_shape

I32, U8, F32 = openvino.Type.i32, openvino.Type.u8, openvino.Type.f32

BLOCK = 32
"""Slots of a block of the cache; the CPU plugin's float32 cache has no other size."""

PAGED = "PagedAttentionExtension"
"""The type of the nodes that attend over a paged cache."""

REPEATING = {"Reshape", "Broadcast", "Unsqueeze"}
"""What a traced graph does to cached keys and values so that each query head has some of its own."""


class Unpaged(Exception):
    """The graph cannot run with paged attention; the message says why."""


class Form(NamedTuple):
    """What the cache tensors of a paged graph look like: two for each layer, ``[blocks, heads, 32, size]``."""

    layers: int
    heads: int
    size: int
    window: int | None
    """The shortest length that an attention sees back, if one does not see everything; it counts slots."""

    def names(self) -> list[str]:
        """The inputs of the graph that are cache tensors, in their order in the cache."""
        return [f"{kind}_cache.{layer}" for layer in range(self.layers) for kind in ("key", "value")]


@dataclass
class _Texts:
    """The inputs that say which texts a pass reads; all layers share them."""

    past: Any = field(default_factory=lambda: _input("past_lens", [-1], I32))
    begins: Any = field(default_factory=lambda: _input("subsequence_begins", [-1], I32))
    blocks: Any = field(default_factory=lambda: _input("block_indices", [-1], I32))
    block_begins: Any = field(default_factory=lambda: _input("block_indices_begins", [-1], I32))
    longest: Any = field(default_factory=lambda: _input("max_context_len", [], I32))
    sees: Any = field(default_factory=lambda: _input("qq_bias", [-1], U8))
    sees_begins: Any = field(default_factory=lambda: _input("qq_bias_begins", [-1], I32))


def fixed(n: int) -> dict[str, list[int]]:
    """The shapes of a graph for passes of ``n`` new tokens of one text."""
    one = {"past_lens": [1], "subsequence_begins": [2], "block_indices_begins": [2], "qq_bias_begins": [2]}
    return {"input_ids": [1, n], "position_ids": [1, n], "columns": [n], "qq_bias": [n * n], **one}


def page(graph: Any, windows: Mapping[str, Reach]) -> Form:
    """Replace each attention over the graph's state, in place. Raises ``Unpaged`` where the rows would be others.

    ``windows``: kind of attention -> how far back it sees. The facts that the CPU plugin needs are not written to files,
    so this is done to a graph that has just been read.
    """
    texts, caches, found, reaches = _Texts(), [], set(), set()
    for layer, node in enumerate(n for n in graph.get_ordered_ops() if _type(n) == "ScaledDotProductAttention"):
        window = _window(node, windows)
        reaches.add(window)
        query, key, value = (node.input_value(0), _new(node.input_value(1)), _new(node.input_value(2)))
        (heads, size), (kv_heads, key_size), (_, value_size) = (_heads(port) for port in (query, key, value))
        if not size == key_size == value_size:
            raise Unpaged(f"keys and values of different sizes ({key_size} and {value_size})")
        found.add((kv_heads, size))
        cache = [_input(f"{kind}_cache.{layer}", [-1, kv_heads, BLOCK, size], F32) for kind in ("key", "value")]
        caches += cache
        how = _scale(node, size), window
        attended = _paged([_flat(query), _flat(key), _flat(value), *cache], texts, how, kv_heads, size)
        back = _swapped(ops.reshape(attended, np.array([1, -1, heads, size]), False))
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(back.output(0))
    if len(found) != 1:
        raise Unpaged("layers with keys of different sizes" if found else "no attention that can be replaced")
    for sink in list(graph.get_sinks()):
        graph.remove_sink(sink)
    graph.add_parameters([*vars(texts).values(), *caches])
    _leave_out(graph)
    graph.validate_nodes_and_infer_types()
    return Form(len(caches) // 2, *found.pop(), min(reaches - {0}, default=None))


def _type(node: Any) -> str:
    return str(node.get_type_name())


def _input(name: str, shape: list[int], kind: Any) -> Any:
    made = ops.parameter(openvino.PartialShape(shape), kind, name=name)
    made.output(0).get_tensor().set_names({name})
    return made


def _window(node: Any, windows: Mapping[str, Reach]) -> int:
    """How many slots an attention sees back, 0 for all. Raises ``Unpaged`` where it sees otherwise."""
    ports = node.inputs()
    if node.get_attributes().get("causal") or len(ports) not in (4, 5):
        raise Unpaged("attention of another kind (causal by itself, or with sinks)")
    mask = node.input_value(3)
    kind = next((str(name)[5:] for name in mask.get_names() if str(name).startswith("mask.")), "")
    if _type(mask.get_node()) != "Parameter" or kind not in windows:
        raise Unpaged("attention that changes its mask (positions as a bias, or soft limits)")
    if windows[kind].chunked:
        raise Unpaged("attention within chunks")
    return windows[kind].size or 0


def _scale(node: Any, size: int) -> float:
    if len(node.inputs()) < 5:
        return float(size**-0.5)
    scale = node.input_value(4).get_node()
    if _type(scale) != "Constant":
        raise Unpaged("attention with a scale that is computed")
    return float(np.array(scale.data).reshape(()))


def _new(port: Any) -> Any:
    """From an attention's input up to the concatenation of the state with the new keys or values: the new ones."""
    node = port.get_node()
    while _type(node) in REPEATING:
        node = node.input_value(0).get_node()
    if _type(node) == "Concat" and len(node.inputs()) == 2:
        past = node.input_value(0).get_node()
        past = past.input_value(0).get_node() if _type(past) == "Gather" else past
        if _type(past) == "ReadValue":
            fold_shape(node.output(0))
            return node.input_value(1)
    raise Unpaged(f"keys or values that go through {_type(node)} between cache and attention")


def _heads(port: Any) -> tuple[int, int]:
    shape = port.get_partial_shape()
    if len(shape) != 4 or shape[1].is_dynamic or shape[3].is_dynamic:
        raise Unpaged(f"attention over the shape {shape}")
    return shape[1].get_length(), shape[3].get_length()


def _swapped(node: Any) -> Any:
    return ops.transpose(node, np.array([0, 2, 1, 3]))


def _flat(port: Any) -> Any:
    """``[1, heads, n, size]`` -> ``[n, heads * size]``."""
    heads, size = _heads(port)
    return ops.reshape(_swapped(port), np.array([-1, heads * size]), False)


def _paged(tensors: list[Any], texts: _Texts, how: tuple[float, int], heads: int, size: int) -> Any:
    """The operation itself: 28 inputs, of which many stay empty here. ``how``: scale and window."""
    from openvino.op import _PagedAttentionExtension

    def floats(*shape: int) -> Any:
        return ops.constant(np.zeros(shape, np.float32))

    none, zero = ops.constant(np.zeros(0, np.int32)), ops.constant(np.array(0, np.int32))
    where = [texts.past, texts.begins, texts.blocks, texts.block_begins]
    scale, window = ops.constant(np.float32(how[0])), ops.constant(np.array(how[1], np.int32))
    rotation = [none, none, ops.constant(np.zeros((0, 1), np.int32)), floats(0, 1)]
    sparse = [floats(0), zero, zero, floats(0, 0, 0, 0)]
    eviction = [zero, none, none, none, none]
    inputs = [
        *tensors,
        *where,
        scale,
        window,
        floats(0),
        texts.longest,
        *rotation,
        *sparse,
        *eviction,
        texts.sees,
        texts.sees_begins,
    ]
    made = _PagedAttentionExtension([node.output(0) for node in inputs])
    facts = made.get_rt_info()
    facts["num_k_heads"], facts["k_head_size"], facts["num_v_heads"], facts["v_head_size"] = heads, size, heads, size
    return made.output(0)


def _leave_out(graph: Any) -> None:
    """Remove the inputs that nothing reads any more; raises ``Unpaged`` where something does."""
    nodes = graph.get_ordered_ops()
    read = {port.get_node().get_friendly_name() for n in nodes for port in n.input_values()}
    if any(_type(node) == "ReadValue" for node in nodes):
        raise Unpaged("a state that is no cache of keys and values")
    for unused in list(graph.get_parameters()):
        if any(name == "beam_idx" or name.startswith("mask.") for name in unused.output(0).get_names()):
            if unused.get_friendly_name() in read:
                raise Unpaged("a mask that is used outside of attention")
            graph.remove_parameter(unused)
