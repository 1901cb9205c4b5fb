"""Where the tokens of a text stand in the logits of a pass."""

from __future__ import annotations

import torch

from decodery.core.values import Rows, Tensor

Index = tuple[slice | Tensor, Tensor]


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
