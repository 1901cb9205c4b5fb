"""Top-k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor


@dataclass
class TopK(Guide):
    """Keeps the ``k`` likeliest tokens, and those tied with the last of them."""

    paper = "Hierarchical Neural Story Generation (Fan et al. 2018)"
    samples = True
    specimens = ({"k": 2},)
    k: Annotated[int, Ge(1)] = 50

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        least = logits.topk(min(self.k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill_(logits < least, -torch.inf)
