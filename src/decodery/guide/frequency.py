"""Frequency penalty."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor
from decodery.guide.lib.extremes import fit, moderate, within


@dataclass
class Frequency(Guide):
    """Takes ``penalty`` (in logits) off each token for every time it stands in the answer; the prompt does not count.

    As OpenAI defines it, where -2 to 2 is allowed. Below 0 it favours them.
    """

    specimens = ({"penalty": 0.8},)
    penalty: float = 0.5

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if moderate(self.penalty):
            return _less(logits, rows, self.penalty)
        return fit(_less(logits.double(), rows, within(self.penalty)), logits.dtype)


def _less(logits: Tensor, rows: Rows, penalty: float) -> Tensor:
    vocab = logits.shape[-1]
    common = Counter(token for token in rows.context[rows.prompt :] if token < vocab)
    own = {
        (row, token): common[token] + times
        for row, path in enumerate(rows.paths)
        for token, times in Counter(path).items()
        if token < vocab
    }
    # One subtraction of the whole count, so that a drafted token costs to the last bit what a committed one costs.
    at = torch.tensor(list(own), dtype=torch.long).reshape(-1, 2).unbind(1)
    left = logits[at] - penalty * logits.new_tensor(list(own.values()))
    logits[:, list(common)] -= penalty * logits.new_tensor(list(common.values()))
    logits[at] = left
    return logits
