"""Top-p, also called nucleus sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.nucleus import least_kept


@dataclass
class TopP(Guide):
    """Keeps the likeliest tokens that together reach probability ``p``, and those tied with the last of them.

    ``p`` lies in [0, 1]: 0 leaves the likeliest token, 1 keeps all.
    """

    paper = "The Curious Case of Neural Text Degeneration (Holtzman et al. 2020)"
    samples = True
    specimens = ({"p": 0.7},)
    p: Annotated[float, Interval(ge=0, le=1)] = 0.9

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if self.p == 1:
            return logits
        return logits.masked_fill_(logits < least_kept(logits, logits.softmax(-1), self.p), -torch.inf)
