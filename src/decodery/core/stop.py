"""When to stop: one definition for every program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from decodery.core.step import Verdict
from decodery.core.text import TextStream
from decodery.core.tree import TokenTree
from decodery.core.values import Budget

if TYPE_CHECKING:
    from decodery.model.session import Session


@dataclass
class Stop:
    """End of sequence, length, stop strings, time and the model's context, for one answer.

    ``reason`` is None while the answer goes on; then "stop" (end of sequence or a stop string), "length" (tokens or
    context), "time" (the limit in seconds passed) or "dead_end" (a constraint left no token).
    """

    eos: frozenset[int] = frozenset()
    max_new_tokens: int = 1 << 40
    context: int = 1 << 40
    time_limit: float | None = None
    text: TextStream | None = None
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
        return Budget(self.nodes if session.bears else 0, self.left(len(session.tokens)) - 1)

    def left(self, length: int) -> int:
        """How many tokens may still follow when the text has ``length`` tokens."""
        return min(self.max_new_tokens - self.emitted, self.context - length)

    def trim(self, verdict: Verdict, tree: TokenTree) -> Verdict:
        """Cut the verdict behind the last token that still counts, and book the rest."""
        tokens = verdict.tokens(tree)
        count = self.take(tokens)
        if not tokens:
            self.reason = "dead_end"
        path = verdict.path[:count]
        return Verdict(path, verdict.extra[: count - len(path)])

    def take(self, tokens: Sequence[int]) -> int:
        """Book tokens until one ends the answer; returns how many count."""
        for count, token in enumerate(tokens, 1):
            self.emitted += 1
            ends = token in self.eos
            if (self.text is not None and self.text.push(token, shown=not ends)) or ends:
                self.reason = "stop"
                return count
            if self.emitted >= self.max_new_tokens:
                self.reason = "length"
                return count
        return len(tokens)
