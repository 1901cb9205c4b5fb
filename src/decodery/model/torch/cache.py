"""Keys and values in slots, as the cache that a transformers network writes and reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from decodery.core.values import Tensor
from decodery.model.slots import Batch

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
