"""Any logits processor of transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor


def _favour_echo(ids: Tensor, scores: Tensor) -> Tensor:
    """A small processor that depends on the words, for the law suite."""
    return scores.index_add(-1, ids[0, -1:], scores.new_ones(1, 1))


@dataclass
class Processor(Guide):
    """Calls ``processor``, a ``LogitsProcessor`` or ``LogitsProcessorList`` of transformers, row by row.

    It gets ``input_ids [1, length]``, prompt included, and ``scores [1, V]``. It must answer by these alone: one that
    remembers earlier calls would remember refused drafts too. It does not switch sampling on; add a temperature guide to sample.
    """

    repeats = True
    specimens = ({"processor": _favour_echo},)
    processor: Callable[..., Any]

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        context = torch.tensor(rows.context, dtype=torch.long, device=logits.device)
        for row, path in enumerate(rows.paths):
            words = torch.cat([context, context.new_tensor(path)])
            logits[row] = self.processor(words[None], logits[row : row + 1])[0]
        return logits
