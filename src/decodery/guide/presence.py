"""Presence penalty."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.extremes import fit, moderate, within
from decodery.guide.lib.places import places


@dataclass
class Presence(Guide):
    """Takes ``penalty`` (in logits) off each token of the answer so far, once; the prompt does not count.

    As OpenAI defines it, where -2 to 2 is allowed. Below 0 it favours them.
    """

    specimens = ({"penalty": 0.8},)
    penalty: float = 0.5

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if moderate(self.penalty):
            return _less(logits, rows, self.penalty)
        return fit(_less(logits.double(), rows, within(self.penalty)), logits.dtype)


def _less(logits: Tensor, rows: Rows, penalty: float) -> Tensor:
    for seen in places(rows, rows.prompt):
        logits[seen] -= penalty
    return logits
