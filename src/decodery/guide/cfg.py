"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from annotated_types import Ge

from decodery.core.errors import PartsClash
from decodery.core.part import Model
from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.extremes import fit, moderate, within
from decodery.model.companion import Companion


@dataclass
class ClassifierFree(Guide):
    """Moves the law away from what the model would say after the prompt ``negative``.

    ``log n + scale * (log p - log n)``, with n the law after ``negative`` and the same answer: scale 1 changes nothing,
    above 1 follows the prompt more closely, 0 is n itself. An empty ``negative`` stands for no prompt: the first
    end-of-sequence token. Every row is computed twice.

    Raises ``ValueError`` from ``bind`` where there is neither a negative prompt nor an end-of-sequence token, and
    ``PartsClash`` for rows that come without the companion's.
    """

    paper = "Stay on topic with Classifier-Free Guidance (Sanchez et al. 2023)"
    specimens = ({"negative": "b"},)
    scale: Annotated[float, Ge(0)] = 1.5
    negative: str = ""

    def bind(self, model: Model) -> Self:
        self._tokens = tuple(model.encode(self.negative)) or tuple(sorted(model.eos)[:1])
        if not self._tokens:
            raise ValueError("cfg needs negative=...: this model has no end-of-sequence token to stand for no prompt")
        return self

    def companions(self, prompt: Sequence[int]) -> dict[str, Companion]:
        return {"negative": Companion(self._tokens)}

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if "negative" not in rows.companions:
            raise PartsClash(
                "cfg cannot guide these rows: they were computed without its companion, the negative prompt"
            )
        negative = rows.companions["negative"].logits.to(logits.dtype)
        ruled_out = logits == -torch.inf  # what was ruled out before stays so, never NaN
        if moderate(self.scale):
            guided = negative.log_softmax(-1).lerp(logits.log_softmax(-1), self.scale)
            return guided.masked_fill_(ruled_out, -torch.inf)
        negative = negative.double().log_softmax(-1)
        apart = (logits.double().log_softmax(-1) - negative).masked_fill_(ruled_out, -torch.inf)
        guided = negative + within(self.scale) * (apart - apart.amax(-1, keepdim=True))
        return fit(guided, logits.dtype).masked_fill_(ruled_out, -torch.inf)
