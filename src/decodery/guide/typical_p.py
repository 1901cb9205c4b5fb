"""Locally typical sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.nucleus import least_kept


@dataclass
class TypicalP(Guide):
    """Keeps the tokens whose surprise is nearest to the entropy until they reach probability ``p``, in (0, 1].

    The likeliest token may be among those that go; 1 keeps all.
    """

    paper = "Locally Typical Sampling (Meister et al. 2023)"
    samples = True
    specimens = ({"p": 0.6},)
    p: Annotated[float, Interval(gt=0, le=1)] = 0.95

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if self.p == 1:
            return logits
        log_p = logits.log_softmax(-1)
        mass = log_p.exp()
        entropy = -(log_p * mass).nansum(-1, keepdim=True)
        typical = -(log_p + entropy).abs()
        return logits.masked_fill_(typical < least_kept(typical, mass, self.p), -torch.inf)
