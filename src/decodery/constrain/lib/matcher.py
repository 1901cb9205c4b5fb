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

FAR = 48
"""Tokens that a matcher goes back and forth between two states; where it is more, a copy of it is made."""
LONGEST = 400
"""Characters of an error of llguidance that are shown."""
COMPILED = 16
"""The grammars that stay compiled: the latest ones."""


@dataclass(eq=False)
class Reader:
    """A matcher, and the state where it stands. States that are near each other share one. ``fresh``: one that never moves."""

    fresh: Any
    matcher: Any
    at: GrammarState | None = None


@dataclass(eq=False)
class GrammarState:
    """What was read so far: a token after an earlier state. It is a value; only the reader, which all share, moves."""

    reader: Reader
    before: GrammarState | None = None
    token: int = -1
    depth: int = 0
    mask: Tensor | None = None

    def matcher(self) -> Any:
        """The matcher, moved to this state: back to where the two ways part, then along this one's tokens."""
        reader, here, there = self.reader, self.reader.at, self
        back, tokens = 0, list[int]()
        while here is not there:
            assert here is not None
            assert there is not None
            if here.depth >= there.depth:
                here, back = here.before, back + 1
            else:
                tokens.append(there.token)
                there = there.before  # type: ignore[assignment]
        if back + len(tokens) > FAR:
            self.reader = reader = Reader(reader.fresh, reader.matcher.deep_copy(), reader.at)
        if back:
            reader.matcher.rollback(back)
        if tokens:
            reader.matcher.try_consume_tokens(tokens[::-1])
        if reader.matcher.is_error():  # where nothing could follow it gave up; then it never moves again
            reader.matcher = reader.fresh.deep_copy()
            reader.matcher.try_consume_tokens(self.tokens())
        reader.at = self
        return reader.matcher

    def tokens(self) -> list[int]:
        """All tokens from the first state to this one."""
        tokens, state = list[int](), self
        while state.before is not None:
            tokens.append(state.token)
            state = state.before
        return tokens[::-1]


class MatcherConstraint(Constraint):
    """A constraint whose grammar llguidance can take; a subclass says which in ``grammar``.

    Raises ``ValueError`` from ``bind`` with llguidance's own words where the grammar is invalid, not supported, or allows
    nothing; ``DecoderyError`` while decoding where it grows past llguidance's limits.
    """

    literal: ClassVar[bool] = True

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
        state = GrammarState(Reader(self._first, self._first.deep_copy()))
        state.reader.at = state
        return state

    def advance(self, state: GrammarState, token: int) -> GrammarState | None:
        matcher = state.matcher()
        if matcher.is_stopped():
            return None
        # Where only one text may follow, the mask holds the tokenizer's own way to write it, and so does this.
        if (forced := matcher.compute_ff_tokens()[:1]) and forced != [token]:
            return None
        if matcher.try_consume_tokens([token]) < 1:
            self._sound(matcher)
            return None
        state.mask = None  # nobody will ask for it again, and answers are long
        state.reader.at = GrammarState(state.reader, state, token, state.depth + 1)
        return state.reader.at

    def mask(self, state: GrammarState) -> Tensor:
        if state.mask is None:
            matcher = state.matcher()
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            self._sound(matcher)
            flags = np.unpackbits(bits, bitorder="little", count=min(self._vocab, 8 * len(bits))).view(np.bool_)
            flags = np.pad(flags, (0, self._vocab - len(flags))) if len(flags) < self._vocab else flags
            flags[self._eos] = False  # whether the answer may end is said by may_end
            state.mask = torch.from_numpy(flags)
        return state.mask

    def may_end(self, state: GrammarState) -> bool:
        return bool(state.matcher().is_accepting())

    def complete(self, state: GrammarState) -> bool:
        matcher = state.matcher()
        return bool(matcher.is_stopped() and matcher.is_accepting())

    def forced(self, state: GrammarState) -> list[int]:
        matcher = state.matcher()
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
