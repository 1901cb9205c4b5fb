"""Toy models over a handful of tokens, exact in float64: the test bed of the law suite."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import llguidance
import torch

from decodery.core.values import Cap, Tensor
from decodery.model.arena import Answer, Arena, Feed
from decodery.model.session import Session
from decodery.model.variant import PLAIN

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
    """Recomputes each row from its words; with fewer layers, it is the model ``shallow`` that answers.

    The state behind any layer is the row that ``shallow`` gives.
    """

    def __init__(self, lm: LanguageModel, shallow: LanguageModel, context: int = 64) -> None:
        super().__init__()
        self.lm, self.shallow, self.context = lm, shallow, context

    def _compute(self, feed: Feed) -> Answer:
        lm = self.lm if feed.variant == PLAIN else self.shallow
        rows = [lm(tuple(self.words(h))) for h in feed.handles if h in feed.wanted]
        logits = torch.stack(rows) if rows else torch.zeros(0, len(lm(())))
        if not feed.want.hidden:
            return Answer(logits)
        states = torch.stack([self.shallow(tuple(self.words(h))) for h in feed.handles])
        wanted = states[[i for i, h in enumerate(feed.handles) if h in feed.wanted]]
        every = dict.fromkeys(feed.want.hidden, states) if feed.want.trunk else {}
        return Answer(logits, dict.fromkeys(feed.want.hidden, wanted), every)


@dataclass
class ToyModel:
    """A random model over the first ``vocab`` letters, with the face of a loaded model."""

    vocab: int = 3
    seed: int = 1
    eos: frozenset[int] = frozenset()
    can: frozenset[Cap] = frozenset({Cap.TREE, Cap.HIDDEN, Cap.LAYERS, Cap.HALVES})
    order: int = 2
    depth: int = 4
    letters: str = "abcdefgh"
    """What its tokens spell to a constraint."""
    lm: LanguageModel = field(init=False)
    shallow: LanguageModel = field(init=False)
    """What answers with fewer layers; its rows are also the states behind every layer."""

    def __post_init__(self) -> None:
        self.lm = table(self.vocab, self.seed, self.order)
        self.shallow = table(self.vocab, self.seed + 100, self.order)

    @property
    def missing(self) -> dict[Cap, str]:
        return dict.fromkeys(set(Cap) - self.can, "this toy was made without it")

    def arena(self, lanes: int = 1) -> Arena:
        return ToyArena(self.lm, self.shallow)

    def session(self, tokens: Sequence[int] = (), arena: Arena | None = None) -> Session:
        return Session(arena or self.arena(), tokens)

    def encode(self, text: str) -> list[int]:
        return ["abcdefgh".index(letter) for letter in text]

    def pieces(self, text: str) -> list[int]:
        return self.encode(text)

    def fingerprint(self) -> str:
        return f"toy {self.vocab}"

    def matcher_tokenizer(self) -> Any:
        from decodery.model.toy import tokenizer_of

        return tokenizer_of([letter.encode() for letter in self.letters[: self.vocab]], sorted(self.eos))

    def companion(self, spec: object) -> ToyModel:
        return replace(self, seed=self.seed + 10)

    def default_layers(self) -> tuple[int, ...]:
        return (0,)

    def logits(self, states: Tensor) -> Tensor:
        return states


def tokenizer_of(tokens: Sequence[bytes], eos: Sequence[int]) -> Any:
    """An llguidance tokenizer over plain byte strings; for toy models."""

    class Plain:
        eos_token_id = bos_token_id = eos[0] if eos else len(tokens)
        unk_token_id = None

        def __init__(self) -> None:
            self.tokens = [*tokens, b""] if not eos else list(tokens)
            self.special_token_ids = [self.eos_token_id]

        def __call__(self, text: bytes | str) -> list[int]:
            raw = text.encode() if isinstance(text, str) else text
            known = takewhile(self.tokens.__contains__, (bytes([b]) for b in raw))
            return [self.tokens.index(b) for b in known]

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Plain()), n_vocab=len(tokens) + (not eos), slices=[])
