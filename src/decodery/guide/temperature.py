"""Temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.extremes import fit, ordinary, within


@dataclass
class Temperature(Guide):
    """Divides the logits by ``t``: below 1 sharper, above 1 flatter; 0 leaves the likeliest token only, and so do
    very small ones."""

    samples = True
    specimens = ({"t": 0.7}, {"t": 0.0})
    t: Annotated[float, Ge(0)] = 1.0

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if self.t == 0:
            best = logits.argmax(-1, keepdim=True)
            return torch.full_like(logits, -torch.inf).scatter_(-1, best, 0.0)
        return logits.div_(self.t) if ordinary(self.t) else fit(logits.double() / within(self.t), logits.dtype)
