"""Each token at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from decodery.core.part import Model
from decodery.core.roles import Constraint
from decodery.core.values import Tensor


@dataclass
class Once(Constraint):
    """No token comes twice. For models whose tokens are positions of their input, as a pointer network's are.

    ``all``: the answer is a permutation: it may end only once every token has come. Otherwise it may end anywhere.
    """

    paper = "Pointer Networks (Vinyals et al. 2015)"
    specimens = ({}, {"all": False})
    all: bool = True

    def bind(self, model: Model) -> Self:
        self._allowed = torch.ones(model.vocab, dtype=torch.bool)
        self._allowed[sorted(model.eos)] = False
        self._count = int(self._allowed.sum())
        return self

    def start(self, prompt: Sequence[int]) -> frozenset[int]:
        return frozenset()

    def advance(self, state: frozenset[int], token: int) -> frozenset[int] | None:
        return None if token in state else state | {token}

    def mask(self, state: frozenset[int]) -> Tensor:
        mask = self._allowed.clone()
        mask[sorted(state)] = False
        return mask

    def may_end(self, state: frozenset[int]) -> bool:
        return not self.all or len(state) == self._count
