"""Repetition penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.extremes import fit, ordinary, within
from decodery.guide.lib.places import places


@dataclass
class Repetition(Guide):
    """Divides the positive logits of all tokens of prompt and answer by ``penalty`` and multiplies the negative ones.

    Above 1 discourages repetition, below 1 invites it.
    """

    paper = "CTRL: A Conditional Transformer Language Model for Controllable Generation (Keskar et al. 2019)"
    specimens = ({"penalty": 1.5},)
    penalty: Annotated[float, Gt(0)] = 1.1

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if ordinary(self.penalty):
            return _divided(logits, rows, self.penalty)
        return fit(_divided(logits.double(), rows, within(self.penalty)), logits.dtype)


def _divided(logits: Tensor, rows: Rows, penalty: float) -> Tensor:
    for seen in places(rows, 0):
        old = logits[seen]
        logits[seen] = (old * penalty).where(old < 0, old / penalty)
    return logits
