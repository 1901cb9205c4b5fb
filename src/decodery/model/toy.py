"""Toy models over a handful of tokens, exact in float64: the test bed of the law suite."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from decodery.model.arena import Answer, Arena, Feed
from decodery.model.session import Session
from decodery.words import Cap, Tensor

LanguageModel = Callable[[tuple[int, ...]], Tensor]
"""All tokens so far -> logits ``[V]``."""


def table(vocab: int, seed: int, order: int = 2, sharpness: float = 1.5) -> LanguageModel:
    """A random model that looks at the last ``order`` tokens."""
    rows: dict[tuple[int, ...], Tensor] = {}

    def logits(words: tuple[int, ...]) -> Tensor:
        key = tuple(words[-order:])
        if key not in rows:
            generator = random.Random(f"{seed}:{key}")
            rows[key] = torch.tensor([generator.gauss(0, sharpness) for _ in range(vocab)], dtype=torch.float64)
        return rows[key]

    return logits


class ToyArena(Arena):
    """Recomputes each row from its words."""

    def __init__(self, lm: LanguageModel, context: int = 64) -> None:
        super().__init__()
        self.lm, self.context = lm, context

    def _compute(self, feed: Feed) -> Answer:
        return Answer(torch.stack([self.lm(tuple(self.words(h))) for h in feed.handles if h in feed.wanted]))


@dataclass
class ToyModel:
    """A language model given as a function, with the face of a loaded model."""

    lm: LanguageModel
    vocab: int
    eos: frozenset[int] = frozenset()
    can: frozenset[Cap] = frozenset({Cap.TREE})
    arena: Arena = field(init=False)

    def __post_init__(self) -> None:
        self.arena = ToyArena(self.lm)

    def session(self, tokens: Sequence[int] = ()) -> Session:
        return Session(self.arena, tokens)

    def encode(self, text: str) -> list[int]:
        return ["abcdefgh".index(c) for c in text]

    def matcher_tokenizer(self) -> Any:
        from decodery.constrain.matcher import tokenizer_of

        return tokenizer_of([bytes([97 + i]) for i in range(self.vocab)], sorted(self.eos))
