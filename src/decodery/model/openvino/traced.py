"""A network as an OpenVINO graph: traced with a cache that concatenates and masks given as inputs.

OpenVINO then makes the cache the graph's state.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from decodery.core.values import Site, Tensor, Want
from decodery.model.facts import windows_of
from decodery.model.openvino.fuse import fold_shapes
from decodery.model.openvino.places import FINAL, FIRST, after, names
from decodery.model.torch.backend import cache_name
from decodery.model.torch.surgery import Surgery


class _Appending(CacheLayerMixin):
    """A layer's cache while it is traced: what came before, and this pass behind it."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.states = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        keys, values = self.states
        self.states = torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)
        return self.states

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Given at the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.states[0].shape[2] + query_length, 0

    def get_seq_length(self) -> int:
        return int(self.states[0].shape[2])

    def get_max_length(self) -> int:
        return -1


class _Traced(torch.nn.Module):
    """The network as a function of tensors only."""

    def __init__(self, network: PreTrainedModel, kinds: Sequence[str]) -> None:
        super().__init__()
        self.network, self.kinds = network, kinds
        self.places: list[str] = []
        """What the hidden states among the outputs are; known once it has run."""

    def forward(self, ids: Tensor, positions: Tensor, columns: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Logits, the hidden states at all places (none where they cannot be watched), and the cache."""
        masks, past = rest[: len(self.kinds)], rest[len(self.kinds) :]
        layers = [_Appending(keys, values) for keys, values in zip(past[::2], past[1::2], strict=True)]
        with _watching(self.network) as hidden:
            answer = self.network(
                input_ids=ids,
                position_ids=positions,
                attention_mask=masks[0] if len(masks) == 1 else dict(zip(self.kinds, masks, strict=True)),
                use_cache=True,
                logits_to_keep=columns,
                **{cache_name(self.network): Cache(layers=list(layers))},
            )
        self.places = list(hidden)
        return (answer.logits, *hidden.values(), *(states for layer in layers for states in layer.states))


@contextmanager
def _watching(network: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Collect the states at all places as the network is run; none where one of them is not found."""
    depth = int(network.config.get_text_config().num_hidden_layers)
    surgery, found = Surgery(network, depth), dict[str, Tensor]()

    def enter(_: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        found[FIRST] = given[0] if given else named["hidden_states"]

    with ExitStack() as scope:
        try:
            hook = surgery.need_layers()[0].register_forward_pre_hook(enter, with_kwargs=True)
            scope.callback(hook.remove)
            seen = scope.enter_context(surgery.watched(Want(frozenset({*range(depth), Site.FINAL}))))
        except ValueError:
            yield {}
            return
        hidden: dict[str, Tensor] = {}
        yield hidden
        found |= {FINAL if isinstance(site, Site) else after(site): states for site, states in seen.items()}
        if found.keys() == set(names(depth)):
            hidden |= {name: found[name] for name in names(depth)}


def traced(network: PreTrainedModel) -> Any:
    """The graph of a network, its cache made the graph's state; the places of hidden states are outputs (``places.py``)."""
    config = network.config.get_text_config()
    kinds = sorted(windows_of(config))
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n, t = 3, 5
    past = [torch.zeros(1, heads, t, size) for _ in range(2 * config.num_hidden_layers)]
    masks = [torch.zeros(1, 1, n, t + n) for _ in kinds]
    example = (torch.zeros(1, n, dtype=torch.long), torch.arange(t, t + n)[None], torch.tensor([1, 2]), *masks, *past)
    with torch.no_grad(), warnings.catch_warnings(), _unobserved():
        warnings.simplefilter("ignore")  # the tracer warns of branches that depend on what never changes here
        # The tracer's own check would take two passes more; the finished graph is checked against the network's rows.
        whole = _Traced(network, kinds)
        trace = TorchScriptPythonDecoder(whole, example_input=example, trace_kwargs={"check_trace": False})
        graph = openvino.convert_model(trace, example_input=example)
    states = [f"state.{i}" for i in range(len(past))]
    inputs = ["input_ids", "position_ids", "columns", *(f"mask.{kind}" for kind in kinds), *states]
    shapes = [[1, -1], [1, -1], [-1], *([[1, 1, -1, -1]] * len(kinds)), *([[-1, heads, -1, size]] * len(past))]
    for port, name, shape in zip(graph.inputs, inputs, shapes, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    for port, name in zip(graph.outputs, ["logits", *whole.places, *(f"after.{name}" for name in states)], strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    fold_shapes(graph)
    _make_stateful(graph, states, heads, size)
    return graph


@contextmanager
def _unobserved() -> Iterator[None]:
    """Keep OpenVINO's converter from telling its maker of each conversion, as it does by default: no user was asked.

    Its modules hold the sender as ``tm``; where that package is missing they hold the stub that takes its place here.
    """
    from openvino.tools.ovc import convert_impl, telemetry_stub, telemetry_utils, utils

    senders = [(module, module.tm) for module in (convert_impl, telemetry_utils, utils) if hasattr(module, "tm")]
    try:
        for module, _ in senders:
            module.tm = telemetry_stub
        yield
    finally:
        for module, sender in senders:
            module.tm = sender


def _make_stateful(graph: Any, states: Sequence[str], heads: int, size: int) -> None:
    """Inputs and outputs of the cache become variables, in the shape that the CPU plugin fuses with attention."""
    from openvino._offline_transformations import apply_make_stateful_transformation

    beams = ops.parameter(openvino.PartialShape([-1]), np.int32, name="beam_idx")
    beams.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([beams])
    for port in graph.inputs:
        if port.any_name in states:
            readers = port.get_target_inputs()
            chosen = ops.gather(port, beams.output(0), ops.constant(0, dtype=np.int64))
            for reader in readers:
                reader.replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, {name: f"after.{name}" for name in states})
    rows = ops.gather(ops.shape_of(beams.output(0), output_type="i64"), ops.constant([0]), ops.constant(0))
    empty = ops.concat([rows, *(ops.constant(np.array([d], np.int64)) for d in (heads, 0, size))], 0)
    for node in list(graph.get_ops()):
        if node.get_type_name() == "ReadValue":
            node.set_arguments([ops.broadcast(ops.constant(0.0, dtype=np.float32), empty)])
    graph.validate_nodes_and_infer_types()
