"""Grammars through llguidance, with states as values: the one adapter that other constraints build on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import llguidance
import numpy as np
import torch

from decodery.core.part import Model
from decodery.core.roles import Constraint
from decodery.core.values import Tensor


@dataclass
class GrammarState:
    """A matcher after some tokens; never changed, only copied."""

    matcher: Any
    _mask: Tensor | None = None


class MatcherConstraint(Constraint):
    """A constraint whose grammar llguidance can take; a subclass says which in ``grammar``.

    Raises ``ValueError`` from ``bind`` with llguidance's own words where the grammar is invalid or not supported.
    """

    literal: ClassVar[bool] = True

    def grammar(self) -> str:
        """The grammar in llguidance's own notation (``LLMatcher.grammar_from_...``)."""
        raise NotImplementedError

    def bind(self, model: Model) -> Self:
        self._vocab, self._eos = model.vocab, sorted(model.eos)
        self._first = llguidance.LLMatcher(model.matcher_tokenizer(), self.grammar())
        if self._first.is_error():
            raise ValueError(f"{type(self).__name__.lower()} constraint: {self._first.get_error().strip()}")
        return self

    def start(self, prompt: Sequence[int]) -> GrammarState:
        return GrammarState(self._first.deep_copy())

    def advance(self, state: GrammarState, token: int) -> GrammarState | None:
        if state.matcher.is_stopped() or state.matcher.validate_tokens([token]) < 1:
            return None
        after = state.matcher.deep_copy()
        after.consume_token(token)
        return GrammarState(after)

    def mask(self, state: GrammarState) -> Tensor:
        if state._mask is None:
            if state.matcher.is_stopped():
                state._mask = torch.zeros(self._vocab, dtype=torch.bool)
            else:
                bits = np.frombuffer(state.matcher.compute_bitmask(), dtype=np.uint8)
                flags = np.unpackbits(bits, bitorder="little")[: self._vocab].astype(np.bool_)
                flags = np.pad(flags, (0, self._vocab - len(flags)))
                flags[self._eos] = False  # whether the answer may end is said by may_end
                state._mask = torch.from_numpy(flags)
        return state._mask

    def may_end(self, state: GrammarState) -> bool:
        return bool(state.matcher.is_accepting())
