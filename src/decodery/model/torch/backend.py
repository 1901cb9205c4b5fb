"""The universal backend: an unmodified transformers causal model with a cache of our own."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from decodery.core.values import Site, Tensor
from decodery.model.facts import context_of, windows_of
from decodery.model.slots import Batch
from decodery.model.torch.cache import GRAIN, Store
from decodery.model.torch.lock import lock_of
from decodery.model.torch.surgery import Surgery
from decodery.model.variant import PLAIN


class TorchBackend:
    """Forwards of a transformers model over slots, its weights untouched.

    What a pass returns lies in main memory, wherever the network is: logits come there in one piece, and so does each place
    of hidden states. Nothing outside of here need know of devices.
    """

    appends = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        config = model.config.get_text_config()
        self.config = config
        self.depth = int(config.num_hidden_layers)
        self.context = context_of(config)
        self.windows = windows_of(config)
        self.surgery, self.lock = Surgery(model, self.depth), lock_of(model)
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
    def forward(self, store: Store, batch: Batch) -> tuple[Tensor, dict[int | Site, Tensor]]:
        device, dtype = self.model.device, self.model.dtype
        store.aim(batch, device)
        blocked = torch.finfo(dtype).min
        masks = {
            kind: torch.zeros((), dtype=dtype, device=device).where(torch.from_numpy(see).to(device), blocked)[:, None]
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
            inputs["inputs_embeds"] = batch.embeds.to(device)
        if self._keeps:
            inputs["logits_to_keep"] = columns
        # Patches and hooks are seen by everybody who runs this network: such a pass runs alone.
        alters = batch.variant != PLAIN or bool(batch.want.hidden) or batch.states is not None
        lock, scope = self.lock.alone() if alters else self.lock.shared(), self.surgery.scope
        states = None if batch.states is None else batch.states.to(device)
        with lock, scope(batch.variant, batch.want, states) as hidden:
            logits = self.model(**inputs).logits
        logits = logits if self._keeps else logits[:, columns]
        return logits.cpu(), {site: states.cpu() for site, states in hidden.items()}


def cache_name(model: nn.Module) -> str:
    """What the network's forward calls its cache: ``cache`` since transformers 5.24, something else before."""
    names = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values", "cache_params") if name in names), "past_key_values")
