"""An accelerated CPU backend: OpenVINO runs the loaded model's graph, its cache kept in the graph's own state.

The transformers model is traced once, with a cache that concatenates and masks given as inputs; OpenVINO then makes the
cache its state. That state can only be appended to, so refused nodes stay behind the mask as dead slots until the arena
compacts them. With float32 cache precision the rows of a tree agree with separate passes (5e-5 on SmolLM2).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from filelock import FileLock
from openvino import opset13 as ops
from rich.console import Console
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from decodery.change.int8 import encode_graph, round_weights
from decodery.core.errors import BadModel
from decodery.core.values import Cap, Tensor
from decodery.model.model import Model
from decodery.model.openvino.fuse import join_products
from decodery.model.probe import Ability, settle, trial_length
from decodery.model.slots import Batch, SlotArena
from decodery.model.torch.backend import TorchBackend, cache_name
from decodery.model.torch.facts import UNLIMITED, context_of, rope_border, windows_of
from decodery.model.trial import BEHIND, check

FORMAT = 2
"""Of the converted graph; another one is converted anew."""

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "PERFORMANCE_HINT": "LATENCY",
}
"""Without these the cache is kept in 8 bits and rows agree to 1e-2 only."""

BLOCKED = np.float32(np.finfo(np.float32).min)


@dataclass
class Request:
    """One text's inference request and how many slots its state holds."""

    infer: Any
    length: int = 0


class OpenVinoBackend:
    """Forwards over an OpenVINO graph whose state is the cache: one lane, slots appended."""

    appends = True

    def __init__(self, graph: Path, config: Any) -> None:
        text = config.get_text_config()
        # One graph has one set of frequencies, so its texts end where the other set would begin.
        self.context = min(context_of(text), rope_border(text) or UNLIMITED)
        self.windows = windows_of(text)
        self._model = _compiled(graph)
        self._idle: list[Any] = []

    def open(self, lanes: int) -> Request:
        """An empty state; requests of texts that ended are used again."""
        infer = self._idle.pop() if self._idle else self._model.create_infer_request()
        infer.reset_state()
        return Request(infer)

    def close(self, store: Request) -> None:
        """The text has ended."""
        self._idle.append(store.infer)

    def reserve(self, store: Request, slots: int) -> int:
        """The state grows by itself."""
        return self.context * 2

    def move(self, store: Request, lane: int, source: list[int], target: list[int], keep: int) -> None:
        order = np.arange(keep)
        order[target] = source
        self._rewrite(store, order)

    def forward(self, store: Request, batch: Batch) -> tuple[Tensor, dict[int, Tensor]]:
        past = int(batch.slots[0, 0])
        if store.length != past:  # a forward was interrupted half way
            self._rewrite(store, np.minimum(np.arange(past), store.length - 1))
        store.length = past + batch.ids.shape[1]
        zero = np.float32(0)
        masks = {f"mask.{kind}": np.where(see, zero, BLOCKED)[:, None] for kind, see in batch.visible.items()}
        store.infer.infer(
            {
                "input_ids": batch.ids,
                "position_ids": batch.positions,
                "columns": np.array(batch.columns, np.int64),
                "beam_idx": np.zeros(1, np.int32),
                **masks,
            },
            share_inputs=True,
        )
        return torch.from_numpy(store.infer.get_tensor("logits").data.copy()), {}

    def _rewrite(self, store: Request, order: Any) -> None:
        """Keep these slots of the state, in this order."""
        for variable in store.infer.query_state():
            kept = np.ascontiguousarray(variable.state.data[:, :, order])
            variable.state = openvino.Tensor(kept)
        store.length = len(order)


def _compiled(graph: Path) -> Any:
    """The graph ready to run; what the compiler finds out is kept beside it (1 MB), which saves two thirds of the time.

    One process at a time, so that none reads what another is writing; a folder that cannot be written keeps nothing.
    """
    core = openvino.Core()
    try:
        with FileLock(graph.parent / "compiled.lock"):
            core.set_property({"CACHE_DIR": str(graph.parent / "compiled")})
            return core.compile_model(str(graph), "CPU", EXACT | {"CACHE_MODE": "OPTIMIZE_SIZE"})
    except OSError:
        return openvino.Core().compile_model(str(graph), "CPU", EXACT)


def convert(network: PreTrainedModel, folder: Path, eight_bits: bool = False) -> Path:
    """The graph of a network in ``folder``, converted once, by one process, whole or not at all.

    ``eight_bits`` rounds the network's weights too, so that the graph is checked against what it stands for.
    """
    graph = folder / "model.xml"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not graph.exists():
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
            try:
                if eight_bits:
                    round_weights(network)
                traced = _graph(network)
                if eight_bits:
                    encode_graph(traced)
                openvino.save_model(traced, partial / graph.name, compress_to_fp16=False)
                backend = OpenVinoBackend(partial / graph.name, network.config)
                tried = TorchBackend(network)
                reason = settle(tried) or check(network, lambda: SlotArena(backend), trial_length(tried, BEHIND))
                if reason or tried.windows != backend.windows:
                    raise BadModel(f"the converted graph's {reason or 'window has no effect in the network'}")
                del backend
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return graph


def accelerated(
    path: str, config: Any, tokenizer: Any, name: str, cache: Path, eight_bits: bool = False, **where: Any
) -> Model:
    """The model at ``path`` over its graph in ``cache``, converted now if need be; its torch weights are not kept.

    Raises ``BadModel`` where the graph cannot be made, or where its rows differ from the network's.
    """
    folder = folder_of(path, config, cache, eight_bits)
    graph = folder / "model.xml"
    if not graph.exists():
        Console(stderr=True).print(f"converting {name} for OpenVINO once; later starts skip this ...")
        network = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32, **where)
        network.eval()  # type: ignore[no-untyped-call]
        try:
            convert(network, folder, eight_bits)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise BadModel(f"{name} cannot be converted for OpenVINO: {str(error).splitlines()[0]}") from error
        del network
    backend = OpenVinoBackend(graph, config)
    missing = dict.fromkeys(set(Cap) - {Cap.TREE}, "the OpenVINO graph has logits only; load with backend=torch")
    ability = Ability(frozenset({Cap.TREE}), lambda lanes: SlotArena(backend, lanes), missing)
    with torch.device("meta"):
        hull = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    with suppress(OSError):
        hull.generation_config = GenerationConfig.from_pretrained(path, **where)
    return Model(hull, tokenizer, name, backend="openvino", ability=ability)


def folder_of(path: str, config: Any, cache: Path, eight_bits: bool = False) -> Path:
    """Where the graph of the model at ``path`` is kept."""
    kind = "openvino-int8" if eight_bits else "openvino"
    return cache / f"{Path(path).name}-{kind}-{_fingerprint(path, config)}"


def _fingerprint(path: str, config: Any) -> str:
    """Changes when the weights do: the hub's commit, or the sizes and times of local files."""
    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    text = repr((FORMAT, path, getattr(config, "_commit_hash", None), state, openvino.__version__))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    join_products(graph)
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
