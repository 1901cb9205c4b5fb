"""The least score that a row keeps so that its best tokens reach a share of the mass."""

from __future__ import annotations

import torch

from decodery.core.values import Tensor

SLICE = 1024
"""So many tokens are sorted first; eight times as many, up to all, only in rows where these do not reach the mass."""


def least_kept(score: Tensor, mass: Tensor, p: float) -> Tensor:
    """The score at which the tokens of each row, best first, reach the share ``p`` of its mass.

    ``score`` and ``mass`` are ``[m, V]``, the answer is ``[m, 1]``.
    """
    total = mass.sum(-1, keepdim=True, dtype=torch.promote_types(mass.dtype, torch.float32))
    return _least(score, mass, total, p, SLICE)


def _least(score: Tensor, mass: Tensor, total: Tensor, p: float, size: int) -> Tensor:
    best, token = score.topk(min(size, score.shape[-1]))
    inside = mass.gather(-1, token).to(total.dtype)
    whole = best.shape[-1] == score.shape[-1]
    outside = None if whole else total - inside.sum(-1, keepdim=True)
    # Summed from the small end, as transformers does: near p = 1 a sum from the large end would round the tail away.
    tail = inside.flip(-1).cumsum(-1).flip(-1)
    kept = ((tail if outside is None else tail + outside) > (1 - p) * total).sum(-1, keepdim=True)
    least = best.gather(-1, (kept - 1).clamp(min=0))
    if outside is not None and (short := (outside > (1 - p) * total)[:, 0]).any():
        least[short] = _least(score[short], mass[short], total[short], p, 8 * size)
    return least
