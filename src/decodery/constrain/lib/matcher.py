"""Grammars through llguidance, with states as values: the one adapter that other constraints build on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import llguidance
import numpy as np
import torch

from decodery.core.errors import DecoderyError
from decodery.core.part import Model
from decodery.core.roles import Constraint
from decodery.core.values import Tensor

LONGEST = 400
"""Characters of an error of llguidance that are shown."""
COMPILED = 16
"""The grammars that stay compiled: the latest ones."""


@dataclass
class GrammarState:
    """A matcher after some tokens; never moved, only copied.

    Copies cost some microseconds. Moving one matcher back and forth would cost less, but in llguidance 1.9 a mask after
    ``rollback`` can be that of the tokens taken back (tests/units/test_json.py has such a walk).
    """

    matcher: Any
    mask: Tensor | None = None


class MatcherConstraint(Constraint):
    """A constraint whose grammar llguidance can take; a subclass says which in ``grammar``.

    Raises ``ValueError`` from ``bind`` with llguidance's own words where the grammar is invalid, not supported, or allows
    nothing; ``DecoderyError`` while decoding where it grows past llguidance's limits.
    """

    literal: ClassVar[bool] = True
    forces: ClassVar[bool] = True

    def grammar(self) -> str:
        """The grammar in llguidance's own notation (``LLMatcher.grammar_from_...``)."""
        raise NotImplementedError

    def matcher(self, model: Model) -> Any:
        """A matcher of the grammar before its first token; only copies of it are moved."""
        return compiled(model.matcher_tokenizer(), self.grammar())

    def refused(self, why: str) -> str:
        """The sentence that says why the grammar is refused."""
        return why

    def bind(self, model: Model) -> Self:
        self._vocab, self._eos = model.vocab, sorted(model.eos)
        self._first = self.matcher(model)
        if self._first.is_error():
            raise ValueError(self.refused(plain(self._first.get_error())))
        start = self.start(())
        if not self.may_end(start) and not self.mask(start).any():
            raise ValueError(self.refused("no text satisfies it, or none that this tokenizer can spell"))
        return self

    def start(self, prompt: Sequence[int]) -> GrammarState:
        return GrammarState(self._first.deep_copy())

    def advance(self, state: GrammarState, token: int) -> GrammarState | None:
        matcher = state.matcher
        if matcher.is_stopped():
            return None
        # Where only one text may follow, the mask holds the tokenizer's own way to write it, and so does this.
        if (forced := matcher.compute_ff_tokens()[:1]) and forced != [token]:
            return None
        after = matcher.deep_copy()
        if after.try_consume_tokens([token]) < 1:
            self._sound(after)
            return None
        return GrammarState(after)

    def mask(self, state: GrammarState) -> Tensor:
        if state.mask is None:
            matcher = state.matcher
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            self._sound(matcher)
            flags = np.unpackbits(bits, bitorder="little", count=min(self._vocab, 8 * len(bits))).view(np.bool_)
            flags = np.pad(flags, (0, self._vocab - len(flags))) if len(flags) < self._vocab else flags
            flags[self._eos] = False  # whether the answer may end is said by may_end
            state.mask = torch.from_numpy(flags)
        return state.mask

    def may_end(self, state: GrammarState) -> bool:
        return bool(state.matcher.is_accepting())

    def complete(self, state: GrammarState) -> bool:
        matcher = state.matcher
        return bool(matcher.is_stopped() and matcher.is_accepting())

    def forced(self, state: GrammarState) -> list[int]:
        matcher = state.matcher
        return [] if matcher.is_stopped() else list(matcher.compute_ff_tokens())

    def _sound(self, matcher: Any) -> None:
        """Raise where the matcher has given up, unless that only means that nothing may follow."""
        if matcher.is_error() and not (error := plain(matcher.get_error())).startswith("NoExtension"):
            raise DecoderyError(f"the constraint cannot be followed any further: {error}")


@lru_cache(COMPILED)
def compiled(tokenizer: Any, grammar: str) -> Any:
    """A matcher of the grammar that nobody moves."""
    limits = llguidance.LLParserLimits(verbose_errors=False)
    return llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def plain(error: str) -> str:
    """What llguidance says, in one line and without its state."""
    for mark in ("<state>", "<non-verbose/>", "<backtrace>"):
        error = error.partition(mark)[0]
    return " ".join(error.split())[:LONGEST]
