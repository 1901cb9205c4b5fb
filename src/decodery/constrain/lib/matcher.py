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
MOST_AHEAD = 64
"""Forced tokens that are told at once."""
COMPILED = 16
"""The grammars that stay compiled: the latest ones."""


@dataclass
class GrammarState:
    """A matcher after some tokens; never moved, only copied.

    Copies cost some microseconds. Moving one matcher back and forth would cost less, but in llguidance 1.9 a mask after
    ``rollback`` can be that of the tokens taken back (tests/units/test_json.py has such a walk).
    """

    matcher: Any
    ahead: list[int] | None = None
    """Tokens that are forced, from ``at`` on; None: not asked yet. A state after one of them need not ask again."""
    at: int = 0
    mask: Tensor | None = None

    def forced(self) -> int | None:
        """The next token, if only one text may follow: then the mask holds the tokenizer's own way to write it."""
        if self.ahead is None:
            self.ahead = [] if self.matcher.is_stopped() else self.matcher.compute_ff_tokens()
        return self.ahead[self.at] if self.at < len(self.ahead) else None


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

    def examine(self) -> None:
        """Raise ``ValueError`` where llguidance refuses the grammar whatever the tokenizer: before a model is loaded."""
        why = llguidance.LLMatcher.validate_grammar(self.grammar())
        if why and not why.startswith("WARNING"):
            raise ValueError(self.refused(plain(why)))

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
        if state.matcher.is_stopped() or (forced := state.forced()) not in (None, token):
            return None
        after = state.matcher.deep_copy()
        if after.try_consume_tokens([token]) < 1:
            self._sound(after)
            return None
        inherits = forced is not None and state.ahead is not None and state.at + 1 < len(state.ahead)
        return GrammarState(after, state.ahead if inherits else None, state.at + 1 if inherits else 0)

    def mask(self, state: GrammarState) -> Tensor:
        if state.mask is None and (forced := state.forced()) is not None:
            state.mask = torch.zeros(self._vocab, dtype=torch.bool)
            state.mask[forced] = True
        elif state.mask is None:
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
        state.forced()
        return (state.ahead or [])[state.at : state.at + MOST_AHEAD]

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
