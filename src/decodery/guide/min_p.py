"""Min-p."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor


@dataclass
class MinP(Guide):
    """Keeps the tokens at least ``p`` times as likely as the likeliest one; ``p`` lies in [0, 1], 0 keeps all."""

    paper = "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs (Nguyen et al. 2024)"
    samples = True
    specimens = ({"p": 0.3},)
    p: Annotated[float, Interval(ge=0, le=1)] = 0.05

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if self.p == 0:
            return logits
        return logits.masked_fill_(logits < logits.amax(-1, keepdim=True) + math.log(self.p), -torch.inf)
