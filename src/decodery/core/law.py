"""From logits to the law a token is drawn from: guided, masked, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from decodery.core.errors import BadLogits
from decodery.core.values import Tensor


@dataclass
class Law:
    """One distribution a row, normalised when asked for: a verifier looks only at the rows it reaches.

    ``logits`` is ``[m, V]``, guided and masked. A greedy law is one-hot on the likeliest token. A row whose mask left
    nothing is dead: ``best`` and ``row`` answer None.
    """

    logits: Tensor
    greedy: bool

    @cached_property
    def best(self) -> list[int | None]:
        """The likeliest token of each row, the lowest id on ties; None for a dead row."""
        value, token = self.logits.max(-1)
        return [
            None if v == -torch.inf else t for v, t in zip(self._sound(value).tolist(), token.tolist(), strict=True)
        ]

    def row(self, row: int) -> Tensor | None:
        """Probabilities ``[V]`` of one row, fresh memory; None for a dead row."""
        if self.greedy:
            best = self.best[row]
            return (
                None
                if best is None
                else torch.zeros_like(self.logits[row]).index_fill_(0, self.logits.new_tensor(best).long(), 1.0)
            )
        logits = self.logits[row]
        if self._sound(logits.max()) == -torch.inf:
            return None
        return logits.softmax(-1)

    def _sound(self, maxima: Tensor) -> Tensor:
        if maxima.isnan().any():
            raise BadLogits("the model's logits are NaN; try dtype=float32, or check the weights and the guides")
        return maxima


def forbid(logits: Tensor, masks: Sequence[Tensor | None]) -> None:
    for row, mask in enumerate(masks):
        if mask is not None:
            logits[row].masked_fill_(~mask.to(logits.device), -torch.inf)
