"""When an answer ends: one definition for every program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from decodery.core.step import Step, Verdict
from decodery.core.text import TextStream
from decodery.core.tree import TokenTree
from decodery.core.values import Budget
from decodery.model.session import Session


@dataclass
class Stop:
    """End of sequence, length, stop strings, time and the model's context, for one answer.

    A program asks it (``stop(session)``, ``budget``, ``trim``) and counts what it commits. Whoever runs the program calls
    ``read`` with each step before the program goes on: the text, and with it stop strings, is known there only.

    ``reason`` is None while the answer goes on; then "stop" (end of sequence, a stop string, or a constraint
    whose text is whole), "length" (tokens or
    context), "time" (the limit in seconds passed) or "dead_end" (a constraint left no token).
    """

    eos: frozenset[int] = frozenset()
    max_new_tokens: int = 1 << 40
    context: int = 1 << 40
    time_limit: float | None = None
    text: TextStream | None = None
    judge: Callable[[Sequence[int]], bool] | None = None
    """Whether an answer of these tokens has ended, by criteria from outside."""
    nodes: int = 1 << 20
    """At most so many draft nodes a step."""
    reason: str | None = None
    emitted: int = 0
    _started: float = field(default_factory=perf_counter)

    def __call__(self, session: Session) -> bool:
        """Whether the program should end."""
        if self.reason is None:
            if self.emitted >= self.max_new_tokens or len(session.tokens) >= self.context:
                self.reason = "length"
            elif self.time_limit is not None and perf_counter() - self._started > self.time_limit:
                self.reason = "time"
        return self.reason is not None

    def budget(self, session: Session) -> Budget:
        """What a drafter may guess now: one token always comes from the verifier."""
        return Budget(self.nodes if session.can_draft else 0, self.left(len(session.tokens)) - 1)

    def left(self, length: int) -> int:
        """How many tokens may still follow when the text has ``length`` tokens."""
        return min(self.max_new_tokens - self.emitted, self.context - length)

    def trim(self, verdict: Verdict, tree: TokenTree) -> Verdict:
        """The verdict up to the token that ends the answer."""
        tokens = verdict.tokens(tree)
        end = next((count for count, token in enumerate(tokens, 1) if token in self.eos), len(tokens))
        return verdict.cut(min(end, self.max_new_tokens - self.emitted))

    def fork(self) -> Stop:
        """The end of another answer that goes on from here, under the same limits."""
        return replace(self, text=self.text.fork() if self.text is not None else None)

    def count(self, tokens: Sequence[int], complete: bool = False) -> None:
        """These tokens were committed; none means that nothing was allowed, ``complete`` that the answer is whole then."""
        self.emitted += len(tokens)
        if not tokens:
            self.reason = "stop" if complete else "dead_end"
        elif tokens[-1] in self.eos:
            self.reason = "stop"
        elif self.emitted >= self.max_new_tokens:
            self.reason = "length"

    def read(self, step: Step, session: Session) -> None:
        """Turn a step's tokens into text; where a stop string is complete, the answer ends with that token."""
        for count, token in enumerate(step.tokens, 1):
            if self.text is not None and self.text.push(token, shown=token not in self.eos):
                self.end("stop", step, session, count)
                return

    def end(self, reason: str, step: Step, session: Session, count: int) -> None:
        """Let the answer end with the first ``count`` tokens of a step; the others are taken back."""
        surplus = len(step.tokens) - count
        session.rewind(len(session.tokens) - surplus)
        self.emitted -= surplus
        step.verdict, step.tokens = step.verdict.cut(count), step.tokens[:count]
        self.reason = reason
