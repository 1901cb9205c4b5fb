"""Least length of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import torch
from annotated_types import Ge

from decodery.core.part import Model
from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor


@dataclass
class MinNewTokens(Guide):
    """Forbids the end of sequence until the answer has ``n`` tokens; stop strings and limits still end it."""

    specimens = ({"n": 2},)
    n: Annotated[int, Ge(0)] = 16

    def bind(self, model: Model) -> Self:
        self._eos = sorted(model.eos)
        return self

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        committed = len(rows.context) - rows.prompt
        early = [row for row, path in enumerate(rows.paths) if committed + len(path) < self.n]
        for eos in self._eos:
            logits[early, eos] = -torch.inf
        return logits
