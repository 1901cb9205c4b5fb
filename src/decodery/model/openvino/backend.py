"""An accelerated CPU backend: OpenVINO runs the model's graph (``convert.py``), its cache kept in the graph's own state.

That state can only be appended to, so refused nodes stay behind the mask as dead slots until the arena compacts them.
With float32 cache precision the rows of a tree agree with separate passes (5e-5 on SmolLM2).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from decodery.core.files import locked
from decodery.core.values import Site, Tensor
from decodery.model.facts import Facts
from decodery.model.openvino.folder import NOTES
from decodery.model.openvino.graphs import settings
from decodery.model.openvino.places import strip
from decodery.model.slots import Batch

BLOCKED = np.float32(np.finfo(np.float32).min)


@dataclass
class Request:
    """One text's inference request and how many slots its state holds."""

    infer: Any
    length: int = 0


class OpenVinoBackend:
    """Forwards over an OpenVINO graph whose state is the cache: one lane, slots appended."""

    appends = True

    def __init__(self, graph: Path, facts: Facts) -> None:
        # One graph has one set of frequencies, so its texts end where the other set would begin.
        self.context, self.windows = facts.context, facts.windows
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

    def forward(self, store: Request, batch: Batch) -> tuple[Tensor, dict[int | Site, Tensor]]:
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
    """The graph ready to run; what the compiler finds out is kept in the folder ``compiled``, if there is one beside it.

    That takes 1 MB and saves two thirds of the time. One process at a time does it, so that none reads what another is
    writing; a folder that cannot be written keeps nothing.
    """
    notes, core = graph.parent / NOTES, openvino.Core()
    model = core.read_model(graph)
    strip(model)
    if notes.is_dir():
        with suppress(OSError), locked(notes):
            core.set_property({"CACHE_DIR": str(notes)})
            return core.compile_model(model, "CPU", settings() | {"CACHE_MODE": "OPTIMIZE_SIZE"})
    return core.compile_model(model, "CPU", settings())
