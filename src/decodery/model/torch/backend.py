"""The universal backend: an unmodified transformers causal model with a cache of our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from decodery.core.values import Tensor, Want
from decodery.model.slots import Batch
from decodery.model.torch.facts import context_of, windows_of
from decodery.model.variant import Half, LayerSet, Shared

GRAIN = 256
"""Slots are allocated in multiples of this."""


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values, ``[lanes, heads, slots, head size]``, written where the batch says."""

    is_sliding = False
    is_compileable = False

    def __init__(self, store: Store) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.store = store
        self.states: list[Tensor] = []
        """Keys and values; empty until the first forward tells their shapes."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        store = self.store
        if not self.states:
            self.states = [store.empty(key_states), store.empty(value_states)]
        for mine, new in zip(self.states, (key_states, value_states), strict=True):
            if isinstance(store.where, slice):
                mine[store.lanes, :, store.where] = new
            else:
                mine[store.lane_index, :, store.where] = new.transpose(1, 2)
        keys, values = (mine[store.lanes, :, : store.seen] for mine in self.states)
        return keys, values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Done in ``update``."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.store.seen, 0

    def get_seq_length(self) -> int:
        return self.store.seen

    def get_max_length(self) -> int:
        return -1

    def resize(self, slots: int) -> None:
        """Make room for ``slots`` slots, keeping what is there."""
        for i, old in enumerate(self.states):
            self.states[i] = old.new_zeros(*old.shape[:2], slots, old.shape[3])
            self.states[i][:, :, : old.shape[2]] = old


class Store(Cache):
    """The slots of all layers, and where the forward under way writes and reads."""

    def __init__(self, lanes: int, layers: int) -> None:
        self.slot_layers = [SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self.slot_layers))
        self.width, self.room, self.seen = lanes, 0, 0
        self.lanes: slice | list[int] = slice(None)
        self.lane_index: Tensor = torch.zeros(0)
        self.where: slice | Tensor = slice(0)

    def empty(self, like: Tensor) -> Tensor:
        # Zeros, not empty: a masked slot still takes part with weight 0, and 0 * NaN is NaN.
        return like.new_zeros(self.width, like.shape[1], self.room, like.shape[3])

    def aim(self, batch: Batch, device: torch.device) -> None:
        """Point at the slots of a batch. A run of slots in one lane is written as a slice, which is cheaper."""
        slots = batch.slots
        self.seen = next(iter(batch.visible.values())).shape[2]
        whole = batch.lanes == list(range(self.width))
        self.lanes = slice(None) if whole else batch.lanes
        if slots.shape[0] == 1 and (np.diff(slots[0]) == 1).all():
            self.where = slice(int(slots[0, 0]), int(slots[0, -1]) + 1)
        else:
            self.lane_index = torch.tensor(batch.lanes, device=device)[:, None]
            self.where = torch.from_numpy(slots).to(device)


class TorchBackend:
    """Forwards of a transformers model over slots, its weights untouched."""

    appends = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        config = model.config.get_text_config()
        self.config = config
        self.depth = int(config.num_hidden_layers)
        self.context = context_of(config)
        self.windows = windows_of(config)
        self.layers = layers_of(model, self.depth)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._cache_name = cache_name(model)

    def open(self, lanes: int) -> Store:
        return Store(lanes, self.depth)

    @torch.inference_mode()
    def reserve(self, store: Store, slots: int) -> int:
        store.room = -(-max(slots, store.room + store.room // 2) // GRAIN) * GRAIN
        for layer in store.slot_layers:
            layer.resize(store.room)
        return store.room

    @torch.inference_mode()
    def move(self, store: Store, lane: int, source: list[int], target: list[int], keep: int) -> None:
        for layer in store.slot_layers:
            for states in layer.states:
                states[lane, :, target] = states[lane, :, source]

    def close(self, store: Store) -> None:
        """Memory goes with the store."""

    @torch.inference_mode()
    def forward(self, store: Store, batch: Batch) -> tuple[Tensor, dict[int, Tensor]]:
        device, dtype = self.model.device, self.model.dtype
        store.aim(batch, device)
        blocked = torch.finfo(dtype).min
        masks = {
            kind: torch.zeros((), dtype=dtype).where(torch.from_numpy(see), blocked)[:, None].to(device)
            for kind, see in batch.visible.items()
        }
        columns = torch.tensor(batch.columns, dtype=torch.long, device=device)
        inputs: dict[str, Any] = {
            "attention_mask": next(iter(masks.values())) if len(masks) == 1 else masks,
            "position_ids": torch.from_numpy(batch.positions).to(device),
            self._cache_name: store,
            "use_cache": True,
        }
        if batch.embeds is None:
            inputs["input_ids"] = torch.from_numpy(batch.ids).to(device)
        else:
            inputs["inputs_embeds"] = batch.embeds
        if self._keeps:
            inputs["logits_to_keep"] = columns
        with ExitStack() as scope:
            if batch.layers is not None:
                scope.enter_context(self.only(batch.layers))
            if batch.states is not None:
                scope.enter_context(self.fed(_first(batch.layers), batch.states))
            hidden = scope.enter_context(self.watched(batch.want, columns))
            logits = self.model(**inputs).logits
        return logits if self._keeps else logits[:, columns], hidden

    @contextmanager
    def only(self, layers: LayerSet) -> Iterator[None]:
        """Let every other layer, or half of a layer, pass its input on."""
        modules = self._need_layers()
        idle = set(range(len(modules)))
        with ExitStack() as scope:
            for entry in layers:
                if isinstance(entry, Half):
                    scope.enter_context(self.without(entry.layer, not entry.attends))
                elif isinstance(entry, Shared):
                    self._share(entry.layers, scope)
                idle -= set(_layers(entry))
            for i in idle:
                scope.enter_context(_instead(modules[i], _pass_on))
            yield

    def without(self, layer: int, attention: bool) -> AbstractContextManager[None]:
        """Let the attention or the MLP of a layer add nothing."""
        attends, transforms = self._halves[layer]
        return _instead(attends, _no_attention) if attention else _instead(transforms, _nothing)

    def _share(self, layers: tuple[int, ...], scope: ExitStack) -> None:
        """Let the attentions of these layers read the input of the first. Here they run one after another all the same."""
        first, *others = (self._need_layers()[i] for i in layers)
        start: list[Tensor] = []

        def lead(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            start[:] = [states]
            return type(first).forward(first, states, *args, **kwargs)

        def behind(layer: nn.Module, i: int, states: Tensor, *args: Any, **kwargs: Any) -> Any:
            with self.without(i, attention=False):
                added = type(layer).forward(layer, start[0], *args, **kwargs) - start[0]
            with self.without(i, attention=True):
                return type(layer).forward(layer, states + added, *args, **kwargs)

        scope.enter_context(_instead(first, lead))
        for i, layer in zip(layers[1:], others, strict=True):
            scope.enter_context(_instead(layer, partial(behind, layer, i)))

    @cached_property
    def _halves(self) -> list[tuple[nn.Module, nn.Module]]:
        """Attention and MLP of each layer: the child that knows its place in a cache, and the other one with matrices."""
        found = []
        for i, layer in enumerate(self._need_layers()):
            heavy = [child for child in layer.children() if any(p.dim() > 1 for p in child.parameters())]
            attends = [child for child in heavy if hasattr(child, "layer_idx")]
            if len(heavy) != 2 or len(attends) != 1:
                raise ValueError(f"layer {i} of {type(self.model).__name__} is not one attention and one MLP")
            found.append((attends[0], heavy[1 - heavy.index(attends[0])]))
        return found

    @contextmanager
    def fed(self, layer: int, states: Tensor) -> Iterator[None]:
        """Give a layer these states instead of its input."""
        hook = self._need_layers()[layer].register_forward_pre_hook(lambda _, inputs: (states, *inputs[1:]))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def watched(self, want: Want, columns: Tensor) -> Iterator[dict[int, Tensor]]:
        """Collect the output states of the wanted layers at the wanted queries."""
        seen: dict[int, Tensor] = {}
        hooks = []
        for layer in want.hidden:
            module = self.head() if layer == Want.FINAL else self._need_layers()[layer]
            hooks.append(_watch(module, layer, seen, columns, before=layer == Want.FINAL, kept=self._keeps))
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def head(self) -> nn.Module:
        """The layer that turns states into logits; its input is the state after the last norm."""
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if not isinstance(head, nn.Module):
            raise ValueError(f"{type(self.model).__name__} has no output embeddings to watch")
        return head

    def _need_layers(self) -> nn.ModuleList:
        if self.layers is None:
            raise ValueError(f"the {self.depth} layers of {type(self.model).__name__} were not found")
        return self.layers


def cache_name(model: nn.Module) -> str:
    """What the network's forward calls its cache: ``cache`` since transformers 5.24, something else before."""
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values", "cache_params") if name in names), "past_key_values")


def layers_of(model: nn.Module, depth: int) -> nn.ModuleList | None:
    """The model's decoder layers: its only list of ``depth`` modules that attend or mix."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    return lists[0] if lists else None


def _layers(entry: int | Half | Shared) -> tuple[int, ...]:
    """The layers of which at least a half runs."""
    if isinstance(entry, Half):
        return (entry.layer,)
    return entry.layers if isinstance(entry, Shared) else (entry,)


def _first(layers: LayerSet | None) -> int:
    """The layer that receives a pass's input; the first one where none runs, for all of them pass it on."""
    return min((i for entry in layers or () for i in _layers(entry)), default=0)


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let another function answer for a module."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _nothing(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.zeros_like(hidden_states)


def _no_attention(hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return torch.zeros_like(hidden_states), None


def _pass_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _watch(module: nn.Module, layer: int, seen: dict[int, Tensor], columns: Tensor, before: bool, kept: bool) -> Any:
    def take(states: Any) -> None:
        states = states[0] if isinstance(states, tuple) else states
        seen[layer] = states if before and kept else states[:, columns]

    if before:
        return module.register_forward_pre_hook(lambda _, inputs: take(inputs))
    return module.register_forward_hook(lambda _, __, output: take(output))
