"""The universal backend: an unmodified transformers causal model with a cache of our own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from decodery.model.slots import Batch
from decodery.words import Tensor, Want

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
        self.context = int(getattr(config, "max_position_embeddings", 0) or 1 << 20)
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
                scope.enter_context(self.fed(min(batch.layers or {0}), batch.states))
            hidden = scope.enter_context(self.watched(batch.want, columns))
            logits = self.model(**inputs).logits
        return logits if self._keeps else logits[:, columns], hidden

    @contextmanager
    def only(self, layers: frozenset[int]) -> Iterator[None]:
        """Let every other layer pass its input on."""
        skipped = [layer for i, layer in enumerate(self._need_layers()) if i not in layers]
        try:
            for layer in skipped:
                layer.forward = _pass_on
            yield
        finally:
            for layer in skipped:
                del layer.forward

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


def windows_of(config: Any) -> dict[str, int | None]:
    """Kind of attention -> its window, as the configuration tells it; whether it holds, the probe finds out."""
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        kinds = ["full_attention" if window is None else "sliding_attention"]
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}


def cache_name(model: nn.Module) -> str:
    """What the network's forward calls its cache: ``cache`` since transformers 5.24, something else before."""
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values", "cache_params") if name in names), "past_key_values")


def layers_of(model: nn.Module, depth: int) -> nn.ModuleList | None:
    """The model's decoder layers: its only list of ``depth`` modules that attend or mix."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    return lists[0] if lists else None


def _pass_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _watch(module: nn.Module, layer: int, seen: dict[int, Tensor], columns: Tensor, before: bool, kept: bool) -> Any:
    def take(states: Any) -> None:
        states = states[0] if isinstance(states, tuple) else states
        seen[layer] = states if before and kept else states[:, columns]

    if before:
        return module.register_forward_pre_hook(lambda _, inputs: take(inputs))
    return module.register_forward_hook(lambda _, __, output: take(output))
