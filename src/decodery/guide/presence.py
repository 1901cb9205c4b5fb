"""Presence penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from decodery.words import Guide, Rows, Tensor

Index = tuple[slice | Tensor, Tensor]


@dataclass
class Presence(Guide):
    """Takes ``penalty`` (in logits) off each token of the answer so far, once; the prompt does not count.

    As OpenAI defines it, where -2 to 2 is allowed. Below 0 it favours them.
    """

    specimens = ({"penalty": 0.8},)
    penalty: float = 0.5

    def __post_init__(self) -> None:
        if not math.isfinite(self.penalty):
            raise ValueError(f"presence needs a finite penalty, e.g. 0.5, not {self.penalty}")

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        for seen in places(rows, rows.prompt):
            logits[seen] -= self.penalty
        return logits


def places(rows: Rows, start: int) -> list[Index]:
    """Where in ``[m, V]`` each row's own tokens from ``start`` on stand, every place once.

    First the context's tokens in all rows, then those that only the paths brought. Ids the logits lack are left out.
    """
    found: list[Index] = []
    vocab = rows.logits.shape[-1]
    context = {token for token in rows.context[start:] if token < vocab}
    paths = [(row, t) for row, path in enumerate(rows.paths) for t in set(path) - context if t < vocab]
    if context:
        found.append((slice(None), torch.tensor(sorted(context), dtype=torch.long)))
    if paths:
        row, token = torch.tensor(paths, dtype=torch.long).unbind(1)
        found.append((row, token))
    return found
