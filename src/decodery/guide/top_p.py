"""Top-p, also called nucleus sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decodery.words import Guide, Rows, Tensor

SLICE = 1024
"""So many tokens are sorted first; all of them only where these do not reach the mass."""


@dataclass
class TopP(Guide):
    """Keeps the likeliest tokens that together reach probability ``p``, and those tied with the last of them.

    ``p`` lies in [0, 1]: 0 leaves the likeliest token, 1 keeps all.
    """

    paper = "The Curious Case of Neural Text Degeneration (Holtzman et al. 2020)"
    samples = True
    p: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"top-p needs 0 <= p <= 1, not {self.p}")

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if self.p == 1:
            return logits
        return logits.masked_fill_(logits < least_kept(logits, logits.softmax(-1), self.p), -torch.inf)


def least_kept(score: Tensor, mass: Tensor, p: float) -> Tensor:
    """The score ``[m, 1]`` at which the tokens, best ``score [m, V]`` first, reach the share ``p`` of ``mass [m, V]``."""
    return _least(score, mass, p * mass.sum(-1, keepdim=True, dtype=torch.float64), SLICE)


def _least(score: Tensor, mass: Tensor, goal: Tensor, size: int) -> Tensor:
    best, token = score.topk(min(size, score.shape[-1]))
    below = mass.gather(-1, token).cumsum(-1, dtype=torch.float64) < goal
    least = best.gather(-1, below.sum(-1, keepdim=True).clamp(max=best.shape[-1] - 1))
    short = below[:, -1]
    if best.shape[-1] < score.shape[-1] and short.any():
        least[short] = _least(score[short], mass[short], goal[short], score.shape[-1])
    return least
