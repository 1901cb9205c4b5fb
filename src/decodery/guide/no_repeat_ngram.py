"""No n-gram twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge

from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor


@dataclass
class NoRepeatNGram(Guide):
    """Forbids each token that would complete a run of ``n`` tokens which prompt or answer already contain."""

    paper = "A Deep Reinforced Model for Abstractive Summarization (Paulus et al. 2018), section 2.5"
    specimens = ({"n": 2},)
    n: Annotated[int, Ge(1)] = 3

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        n, context = self.n, rows.context
        tokens = torch.tensor(context, dtype=torch.long)
        runs = tokens.unfold(0, n, 1) if len(context) >= n else tokens.new_empty(0, n)
        for row, path in enumerate(rows.paths):
            # ``near`` holds every run that ends in the path; the others are in ``runs``, shared by all rows.
            near = [*context[max(len(context) - n + 1, 0) :], *path]
            if len(near) < n - 1:
                continue
            last = near[len(near) - n + 1 :]
            again = runs[(runs[:, :-1] == torch.tensor(last)).all(-1), -1].tolist()
            again += [near[i + n - 1] for i in range(len(near) - n + 1) if near[i : i + n - 1] == last]
            logits[row, [token for token in again if token < logits.shape[-1]]] = -torch.inf
        return logits
