"""The answer is a span of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import torch
from annotated_types import Ge, MinLen

from decodery.core.part import Model
from decodery.core.roles import Constraint
from decodery.core.values import Tensor


class Places(NamedTuple):
    """Which of the text's tokens may come next, how many the answer has, and whether they are all white space."""

    following: tuple[int, ...]
    length: int
    blank: bool


@dataclass
class Span(Constraint):
    """The answer is a run of at most ``longest`` tokens of ``text``, in the text's own tokenisation.

    It may end anywhere but where all of it is white space: to some models a blank answer is the likeliest of all.

    Give the text as it stands in the prompt, the space before it included, so that tokens are the same. With
    ``search=exact`` the answer is the likeliest span of all.
    """

    example = "span:the sky is blue"
    specimens = ({"text": "abacab", "longest": 3},)
    text: Annotated[str, MinLen(1)]
    longest: Annotated[int, Ge(1)] = 32

    def bind(self, model: Model) -> Self:
        self._tokens, self._vocab = model.pieces(self.text), model.vocab
        decode = model.matcher_tokenizer().decode_bytes
        self._blank = frozenset(token for token in self._tokens if not decode([token]).strip())
        return self

    def start(self, prompt: Sequence[int]) -> Places:
        return Places(tuple(range(len(self._tokens))), 0, True)

    def advance(self, state: Places, token: int) -> Places | None:
        if state.length == self.longest:
            return None
        after = tuple(i + 1 for i in state.following if i < len(self._tokens) and self._tokens[i] == token)
        return Places(after, state.length + 1, state.blank and token in self._blank) if after else None

    def mask(self, state: Places) -> Tensor:
        mask = torch.zeros(self._vocab, dtype=torch.bool)
        if state.length < self.longest:
            mask[[self._tokens[i] for i in state.following if i < len(self._tokens)]] = True
        return mask

    def may_end(self, state: Places) -> bool:
        return not state.blank
