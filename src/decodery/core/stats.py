"""Every figure, folded from steps. Acceptance leaves the verifier's own token out, tokens per forward counts it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, TypeVar

from decodery.core.step import Step
from decodery.core.values import Rows

FEW = 8
"""Fewer steps without drafts say too little of what plain decoding takes."""

T = TypeVar("T")
Asks = list[Any]


@dataclass
class Stats:
    """What an answer cost.

    ``seconds`` is wall time from the call to the last token, ``first`` to the first token; ``phases`` splits the steps.
    ``forwards`` counts the target's passes that ended in a verdict (a long prompt takes further ones before the first).
    ``plain``: seconds of a step without drafts: the mean of those in this answer or, where it has fewer than ``FEW``, what
    a planner thinks that a forward of one token costs; 0 where neither is known. ``undrafted``, ``undrafted_seconds``:
    how many steps after the first had no drafts, and what they took.
    ``accepted_at[d]`` counts accepted drafts ``d`` levels below the root. ``calls``: see ``Step.calls``.
    """

    tokens: int = 0
    forwards: int = 0
    drafted: int = 0
    accepted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    first: float = 0.0
    lossless: bool = True
    plain: float = 0.0
    undrafted: int = 0
    undrafted_seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    drafted_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, step: Step) -> None:
        """Book one step."""
        self.tokens += len(step.tokens)
        self.forwards += 1
        self.drafted += len(step.tree)
        self.accepted += len(step.verdict.path)
        self.drafted_at.update(step.tree.depths)
        self.accepted_at.update(range(1, len(step.verdict.path) + 1))
        self.calls.update(step.calls)
        if len(step.tree) == 0 and self.forwards > 1:  # the first step read the prompt
            self.undrafted += 1
            self.undrafted_seconds += sum(step.seconds.values())
        for phase, seconds in step.seconds.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + seconds

    def __add__(self, other: Stats) -> Stats:
        """The figures of two answers together; ``plain``, which is no sum, is the later one's."""
        phases = Counter(self.phases)
        phases.update(other.phases)
        found = replace(self, phases=dict(phases), lossless=self.lossless and other.lossless, plain=other.plain)
        for name in ("tokens", "forwards", "drafted", "accepted", "prompt_tokens", "cached_tokens", "seconds", "first"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        for name in ("undrafted", "undrafted_seconds", "drafted_at", "accepted_at", "calls"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        return found

    @property
    def tokens_per_forward(self) -> float:
        """Emitted tokens by forward, the verifier's own token included; 1 is plain decoding."""
        return self.tokens / max(self.forwards, 1)

    @property
    def tokens_per_second(self) -> float:
        """Emitted tokens by second after the first token; the prompt's time is in ``first``.

        Of an answer that came in one step (a search's, or a single token) all the time counts.
        """
        if self.seconds <= self.first:
            return self.tokens / max(self.seconds, 1e-9)
        return max(self.tokens - 1, 0) / (self.seconds - self.first)

    def set_plain(self, forward: float) -> None:
        """``forward``: what a planner thinks that a forward of one token costs, in seconds."""
        self.plain = self.undrafted_seconds / self.undrafted if self.undrafted >= FEW else forward

    @property
    def speedup(self) -> float:
        """How many times as fast as plain decoding the tokens after the first came, by ``plain``; 0 where that is unknown."""
        return self.plain * self.tokens_per_second

    @property
    def acceptance(self) -> float:
        """Accepted drafts by drafted ones."""
        return self.accepted / max(self.drafted, 1)

    def line(self) -> str:
        """One line for a person."""
        drafts = f" · {self.acceptance:.0%} of {self.drafted} drafts accepted" if self.drafted else ""
        faster = f" ({self.speedup:.2f}x plain)" if self.plain and self.drafted else ""
        return (
            f"{self.tokens} tokens · {self.tokens_per_second:.1f} tok/s{faster} · {self.tokens_per_forward:.2f} tokens/forward"
            f"{drafts} · first token {self.first:.2f} s" + ("" if self.lossless else " · lossy")
        )

    def as_dict(self) -> dict[str, object]:
        """For ``--json`` and result files."""
        return {
            "tokens": self.tokens,
            "forwards": self.forwards,
            "tokens_per_forward": round(self.tokens_per_forward, 4),
            "tokens_per_second": round(self.tokens_per_second, 3),
            "drafted": self.drafted,
            "accepted": self.accepted,
            "acceptance": round(self.acceptance, 4),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "seconds": round(self.seconds, 4),
            "first_token_seconds": round(self.first, 4),
            "phases": {phase: round(seconds, 4) for phase, seconds in self.phases.items()},
            "drafted_at": dict(self.drafted_at),
            "accepted_at": dict(self.accepted_at),
            "calls": {name: count for name, count in self.calls.items() if count},
            "lossless": self.lossless,
            "plain_forward_seconds": round(self.plain, 5),
        }


class Ticks:
    """A stopwatch read at the end of each phase of a step, and a count of the passes that it took.

    ``tick(phase)`` books the time since the last reading. Time in which other programs ran is nobody's: see ``during``.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self._last = perf_counter()

    def __call__(self, phase: str) -> None:
        now = perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def during(self, phase: str, asking: Generator[Asks, list[Rows], T]) -> Generator[Asks, list[Rows], T]:
        """Run what asks for passes: its own time and its share of their time belong to this phase."""
        rows: list[Rows] | None = None
        while True:
            try:
                asks = next(asking) if rows is None else asking.send(rows)
            except StopIteration as end:
                self(phase)
                value: T = end.value
                return value
            self(phase)
            rows = yield asks
            self._last = perf_counter()
            for cost in (one.cost for one in rows):
                self.seconds[phase] += cost.seconds
                self.calls["draft" if phase == "draft" else "target"] += cost.passes
                self.calls["companion"] += cost.companions
                self.calls["positions"] += cost.positions if phase == "forward" else 0
