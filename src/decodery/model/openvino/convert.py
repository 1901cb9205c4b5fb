"""From a network to an OpenVINO graph, once for each content of its files, checked against the network.

The transformers model is traced with a cache that concatenates and masks given as inputs; OpenVINO then makes the cache its
state.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
import transformers
from openvino import opset13 as ops
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from decodery.core.errors import BadModel
from decodery.core.files import make_once
from decodery.core.values import Cap, Tensor
from decodery.model.change import Change
from decodery.model.checkpoint import first_line, network_of
from decodery.model.diskcache import cache_dir, digest, digest_of_folder
from decodery.model.gguf import network_in
from decodery.model.model import Model
from decodery.model.openvino.backend import NOTES, OpenVinoBackend
from decodery.model.openvino.fuse import join_products
from decodery.model.openvino.stored import Stored
from decodery.model.openvino.weights import keep_codes, keep_halves
from decodery.model.probe import Ability, settle, trial_length
from decodery.model.resolve import Place
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend, cache_name
from decodery.model.torch.facts import windows_of
from decodery.model.trial import BEHIND, check

LOG = logging.getLogger(__name__)

FORMAT = 4
"""Of the converted graph; raise it when the conversion, or what a ``Change`` does to a graph, is another."""


def accelerated(
    place: Place,
    config: Any,
    tokenizer: Any,
    name: str,
    loader: Callable[..., Model],
    change: Sequence[Change] = (),
    **where: Any,
) -> Model:
    """The model at ``place`` over its graph, converted now if need be; its torch weights are not kept in memory.

    Raises ``BadModel`` where the graph cannot be made or kept, or where its rows differ from the network's.
    """

    def build(folder: Path) -> None:
        LOG.info("converting %s for OpenVINO once; later starts skip this ...", name)
        options = {"config": config, "dtype": torch.float32, **where}
        network = network_in(place.gguf) if place.gguf else network_of(place.path, **options)
        for part in change:
            part.network(network)
        convert(network, folder, change, _stored(place, config))
        LOG.info("converted %s", name)

    try:
        folder = make_once(folder_of(place, config, change), build)
        backend = OpenVinoBackend(folder / GRAPH, config)
    except BadModel:
        raise
    except OSError as error:
        raise BadModel(f"the graph of {name} cannot be kept: {error}. Set DECODERY_CACHE to another folder") from error
    except Exception as error:  # the tracer and the compiler have many kinds
        raise BadModel(f"{name} cannot be converted for OpenVINO: {first_line(error)}") from error
    missing = dict.fromkeys(set(Cap) - {Cap.TREE}, "the OpenVINO graph has logits only; load with backend=torch")
    ability = Ability(frozenset({Cap.TREE}), lambda lanes: SlotArena(backend, lanes), missing)
    hull = _hull(place.path, config, **where)
    return Model(hull, tokenizer, name, backend="openvino", ability=ability, loader=loader)


GRAPH = "model.xml"


def convert(
    network: PreTrainedModel, folder: Path, change: Sequence[Change] = (), stored: Stored | torch.dtype | None = None
) -> None:
    """Write the graph of a network, changed already, into ``folder``. Raises ``BadModel`` where its rows differ.

    ``stored``: what the weights are in the model's files, a GGUF's rows or a dtype; the graph keeps them so, unless a
    change has made others of them.
    """
    if any(part.weights for part in change):
        stored = None
    traced, coded = _graph(network), 0
    if isinstance(stored, Stored):
        join_products(traced, stored.form)
        coded = keep_codes(traced, stored)
    else:
        join_products(traced)
        keep_halves(traced, stored)
    for part in change:
        part.graph(traced)
    try:
        openvino.save_model(traced, folder / GRAPH, compress_to_fp16=False)
    except RuntimeError as error:  # its message speaks of iostream
        raise OSError(f"cannot write {folder / GRAPH}; is the disk full?") from error
    backend = OpenVinoBackend(folder / GRAPH, network.config)
    tried = TorchBackend(network)
    reason = settle(tried) or check(network, lambda: SlotArena(backend), trial_length(tried, BEHIND))
    if reason or tried.windows != backend.windows:
        raise BadModel(f"the converted graph's {reason or 'window has no effect in the network'}")
    if not coded:  # else the compiler would keep the weights a second time, with codes repacked
        (folder / NOTES).mkdir()


def _stored(place: Place, config: Any) -> Stored | torch.dtype | None:
    return Stored(place.gguf) if place.gguf else getattr(config, "dtype", None)


def folder_of(place: Place, config: Any, change: Sequence[Change] = ()) -> Path:
    """Where the graph of the model at ``place`` is kept: another folder for any other content of the model's files."""
    path, content = place.path, [digest(place.gguf)] if place.gguf else []
    if Path(path).is_dir():
        content.append(digest_of_folder(Path(path)))
    else:
        content += [path, str(getattr(config, "_commit_hash", None)), config.to_json_string()]
    facts = (FORMAT, content, [repr(part) for part in change], transformers.__version__, openvino.__version__)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    kind = "-".join(["openvino", *(type(part).__name__.lower() for part in change)])
    return cache_dir() / f"{Path(path).name}-{kind}-{key}"


def _hull(path: str, config: Any, **where: Any) -> PreTrainedModel:
    """The network without weights: what it is made of is asked, but nothing is computed with it."""
    with torch.device("meta"):
        hull: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32, trust_remote_code=where.get("trust_remote_code", False)
        )
    with suppress(OSError):
        hull.generation_config = GenerationConfig.from_pretrained(path, revision=where.get("revision") or "main")
    return hull


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

    def forward(self, ids: Tensor, positions: Tensor, columns: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        masks, past = rest[: len(self.kinds)], rest[len(self.kinds) :]
        layers = [_Appending(keys, values) for keys, values in zip(past[::2], past[1::2], strict=True)]
        answer = self.network(
            input_ids=ids,
            position_ids=positions,
            attention_mask=masks[0] if len(masks) == 1 else dict(zip(self.kinds, masks, strict=True)),
            use_cache=True,
            logits_to_keep=columns,
            **{cache_name(self.network): Cache(layers=list(layers))},
        )
        return (answer.logits, *(states for layer in layers for states in layer.states))


def _graph(network: PreTrainedModel) -> Any:
    """Trace the network and make its cache the graph's state."""
    config = network.config.get_text_config()
    kinds = sorted(windows_of(config))
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n, t = 3, 5
    past = [torch.zeros(1, heads, t, size) for _ in range(2 * config.num_hidden_layers)]
    masks = [torch.zeros(1, 1, n, t + n) for _ in kinds]
    example = (torch.zeros(1, n, dtype=torch.long), torch.arange(t, t + n)[None], torch.tensor([1, 2]), *masks, *past)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of branches that depend on what never changes here
        graph = openvino.convert_model(_Traced(network, kinds), example_input=example)
    states = [f"state.{i}" for i in range(len(past))]
    names = ["input_ids", "position_ids", "columns", *(f"mask.{kind}" for kind in kinds), *states]
    shapes = [[1, -1], [1, -1], [-1], *([[1, 1, -1, -1]] * len(kinds)), *([[-1, heads, -1, size]] * len(past))]
    for port, name, shape in zip(graph.inputs, names, shapes, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    for port, name in zip(graph.outputs, ["logits", *(f"after.{name}" for name in states)], strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    _make_stateful(graph, states, heads, size)
    return graph


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
