"""Several constraints at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Self

import torch
from annotated_types import MinLen

from decodery.core.part import Model, ready
from decodery.core.roles import Constraint
from decodery.core.values import Tensor


@dataclass
class All(Constraint):
    """Every one of ``parts`` holds: a token is allowed where all allow it, and the answer ends where all may.

    Parts that agree on no text lead into a dead end, which the answer's ``finish_reason`` says. The value of the answer is
    that of the first part that has one.
    """

    example = "all(regex:[a-z ]+,substring:the sky is blue)"
    specimens = ({"parts": ["regex:(a|bc|ca)*", {"substring": {"text": "abcaca"}}]},)
    parts: Annotated[tuple[Constraint, ...], MinLen(1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.literal = any(part.literal for part in self.parts)  # type: ignore[misc]
        self.forces = any(part.forces for part in self.parts)  # type: ignore[misc]

    def bind(self, model: Model) -> Self:
        self.parts = tuple(ready(part, model) for part in self.parts)
        return self

    def start(self, prompt: Sequence[int]) -> tuple[Any, ...]:
        return tuple(part.start(prompt) for part in self.parts)

    def advance(self, state: tuple[Any, ...], token: int) -> tuple[Any, ...] | None:
        after = tuple(part.advance(one, token) for part, one in zip(self.parts, state, strict=True))
        return None if None in after else after

    def mask(self, state: tuple[Any, ...]) -> Tensor | None:
        masks = [part.mask(one) for part, one in zip(self.parts, state, strict=True)]
        found = [mask for mask in masks if mask is not None]
        return reduce(torch.logical_and, found) if found else None

    def may_end(self, state: tuple[Any, ...]) -> bool:
        return all(part.may_end(one) for part, one in zip(self.parts, state, strict=True))

    def complete(self, state: tuple[Any, ...]) -> bool:
        done = any(part.complete(one) for part, one in zip(self.parts, state, strict=True))
        return done and self.may_end(state)

    def forced(self, state: tuple[Any, ...]) -> Sequence[int]:
        return max((part.forced(one) for part, one in zip(self.parts, state, strict=True)), key=len)

    def value(self, text: str, whole: bool = True) -> Any:
        return next((v for part in self.parts if (v := part.value(text, whole)) is not None), None)
