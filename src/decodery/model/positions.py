"""How many positions a network has a table for, seen in a pass of three tokens."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from decodery.model.trial import Unable, Words, blamed


class _Tables(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many tokens fit into each table that is looked up by position."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limits: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.embedding.default:
            table, places = args[0], args[1].flatten()
            if places.tolist() == list(range(int(places[0]), int(places[0]) + len(places))) and len(places) > 1:
                self.limits.append(int(table.shape[0] - places[0]))
        return func(*args, **kwargs or {})


@torch.inference_mode()
def position_limit(network: PreTrainedModel) -> int | None:
    """How many tokens the network's table of positions has rows for; None if it has no such table."""
    tokens = network.get_input_embeddings()
    if not any(isinstance(m, torch.nn.Embedding) and m is not tokens for m in network.modules()):
        return None
    with _Tables() as seen, suppress(Unable), blamed(network):
        network(input_ids=torch.tensor([[Words(network).one()] * 3], device=network.device), use_cache=False)
    return min(seen.limits, default=None)
