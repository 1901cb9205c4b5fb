"""DoLa: contrast the last layer with an earlier one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch

from decodery.core.part import Model
from decodery.core.roles import Guide
from decodery.core.values import Cap, Rows, Tensor, Want


@dataclass
class Dola(Guide):
    """Takes away what the network would have said after an earlier layer, so that what later layers know stands out.

    Each row's premature layer is that of ``layers`` whose law is farthest from the last one's (Jensen-Shannon divergence);
    a single layer is the paper's static variant. By default the even layers of the lower half, as for open answers; layer i
    (0-based) is the output of layer i. Tokens at least ``alpha`` times as likely as the likeliest keep ``log p - log q``,
    the others are forbidden. ``bind`` raises ``ValueError`` for a layer that the model does not have.
    """

    paper = "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models (Chuang et al. 2024)"
    needs = frozenset({Cap.HIDDEN, Cap.LAYERS})
    specimens = ({"layers": (0, 1), "alpha": 0.1},)
    layers: tuple[int, ...] = ()
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"dola needs alpha from 0 to 1, not {self.alpha}")

    def bind(self, model: Model) -> Self:
        self._candidates = self.layers or tuple(range(0, max(model.depth // 2, 1), 2))
        if unknown := [layer for layer in self._candidates if not 0 <= layer < model.depth - 1]:
            raise ValueError(f"dola: layers before the last one are 0 to {model.depth - 2}, not {unknown}")
        self._read = model.logits
        return self

    @property
    def want(self) -> Want:
        """The states after each candidate layer."""
        return Want(frozenset(self._candidates))

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        states = torch.cat([rows.hidden[layer] for layer in self._candidates])
        early = self._read(states).to(logits).log_softmax(-1).view(len(self._candidates), *logits.shape)
        # The layers are compared as the network gave them: guides before this one changed the last one only.
        last = rows.logits.to(logits).log_softmax(-1)
        farthest = _divergence(last, early).argmax(0)
        premature = early[farthest, torch.arange(len(logits), device=logits.device)]
        mature = logits.log_softmax(-1)
        likely = mature >= mature.amax(-1, keepdim=True) + (math.log(self.alpha) if self.alpha else -math.inf)
        return (mature - premature).masked_fill_(~likely | (logits == -torch.inf), -torch.inf)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of log-laws ``[m, V]`` and ``[c, m, V]``: ``[c, m]``."""
    middle = torch.logaddexp(p, q) - math.log(2)
    apart = p.exp() * (p - middle), q.exp() * (q - middle)
    return sum(part.nan_to_num(0.0).sum(-1) for part in apart) / 2  # type: ignore[return-value]
