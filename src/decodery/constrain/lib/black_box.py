"""Constraints that only answer whether a text is allowed: no grammar, no mask, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self

import torch

from decodery.core.part import Model
from decodery.core.roles import Constraint
from decodery.core.values import Tensor


class Written(NamedTuple):
    """The text so far, and whether it may be the whole."""

    text: bytes
    done: bool


class BlackBox(Constraint):
    """A constraint that is a yes-or-no question about the text so far; a subclass says in ``judge`` what it answers.

    The question must be prefix-closed: a text that is refused may have no allowed continuation. One that allows too much
    on the way is slower but not wrong, as long as ``judge`` is right about whole texts. Under ``search=smc`` few tokens are
    asked about; in the loop and in other searches ``mask`` asks about every token of the vocabulary at every step.
    """

    literal: ClassVar[bool] = True

    def judge(self, text: bytes) -> bool | None:
        """True: the answer may be this text. False: it may begin so. None: it may not."""
        raise NotImplementedError

    def opening(self) -> bytes:
        """What is read before the answer; empty: the answer is judged by itself."""
        return b""

    def bind(self, model: Model) -> Self:
        tokenizer = model.matcher_tokenizer()
        known = min(model.vocab, tokenizer.vocab_size)
        special = model.eos | {token for token in range(known) if tokenizer.is_special_token(token)}
        pieces = {token: tokenizer.decode_bytes([token]) for token in range(known) if token not in special}
        self._pieces = {token: piece for token, piece in pieces.items() if piece}
        self._vocab = model.vocab
        return self

    def start(self, prompt: Sequence[int]) -> Written:
        opening = self.opening()
        return Written(opening, bool(self.judge(opening)))

    def advance(self, state: Written, token: int) -> Written | None:
        if (piece := self._pieces.get(token)) is None:
            return None
        text = state.text + piece
        done = self.judge(text)
        return None if done is None else Written(text, done)

    def mask(self, state: Written) -> Tensor:
        mask = torch.zeros(self._vocab, dtype=torch.bool)
        mask[[token for token in self._pieces if self.advance(state, token) is not None]] = True
        return mask

    def may_end(self, state: Written) -> bool:
        return state.done
