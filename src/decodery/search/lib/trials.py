"""Several answers to one text, each continued by itself: forks of a search's session that share its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from decodery.core.chooser import Chooser
from decodery.core.roles import Built
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Candidate, Rows
from decodery.model.session import Ask, Session
from decodery.run.crew import Crew, Failed
from decodery.run.loop import trial


@dataclass
class Trial:
    """One answer: its tokens and their log-probability under the model's own law (nats), before any guide."""

    number: int
    session: Session
    stop: Stop
    tokens: list[int] = field(default_factory=list)
    log_p: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether it came to an end of its own, not to a limit."""
        return self.stop.reason == "stop"


class Trials:
    """``n`` answers that run together. Drafts inside are lawful: no answer's tokens look at another answer."""

    def __init__(self, n: int, session: Session, built: Built, rng: Chooser, stop: Stop) -> None:
        self.all: list[Trial] = []
        self._session, self._built, self._rng, self._stop, self._crew = session, built, rng, stop, Crew()
        self._last: Step | None = None
        for _ in range(n):
            self.begin()

    def begin(self) -> Trial:
        """One more answer. The first one draws as plain sampling would, so n=1 is plain sampling."""
        one = Trial(len(self.all), self._session.fork(), self._stop.fork())
        own = self._rng.fork() if one.number else self._rng
        self._crew.add(one.number, trial(self._built, one.session, own, one.stop))
        self.all.append(one)
        return one

    def __bool__(self) -> bool:
        """Whether any is still going on."""
        return bool(self._crew)

    def asks(self) -> list[Ask]:
        """What they ask for."""
        return self._crew.asks()

    def tell(self, rows: Sequence[Rows]) -> Iterator[tuple[Trial, Step | None]]:
        """Hand rows out; yields each trial that went on, and its step as one that adds nothing to the answer yet.

        None for the step: the trial has ended. Raises what a trial raises.
        """
        for number, event in self._crew.tell(rows):
            one = self.all[number]
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, Step):
                yield one, None
                continue
            one.stop.read(event, one.session)
            one.tokens += event.tokens
            one.log_p += _log_p(event)
            self._last = event
            event.calls["trial"] += 1
            yield one, replace(event, tokens=[], verdict=Verdict(()))

    def cancel(self, one: Trial) -> None:
        """Let a trial go no further."""
        self._crew.cancel(one.number)

    def settle(self, ranked: Sequence[Trial], score: Callable[[Trial], float]) -> Step:
        """Make the first of these the answer, the others candidates; the search's session goes on from it."""
        best, last = ranked[0], self._last
        assert last is not None, "no trial has taken a step"
        self._session.adopt(best.session)
        self._stop.count(best.tokens)
        self._stop.reason = best.stop.reason
        candidates = [Candidate(tuple(one.tokens), score(one)) for one in ranked]
        verdict = Verdict((), tuple(best.tokens))
        return Step(TokenTree(), last.rows, last.p, verdict, list(best.tokens), candidates=candidates)

    def close(self) -> None:
        """Give everything up that was not made the answer."""
        self._crew.close()
        for one in self.all:
            one.session.close()


def _log_p(step: Step) -> float:
    """The log-probability of a step's tokens under the model's own law."""
    rows = [step.rows.at(node) or 0 for node in (ROOT, *step.verdict.path)][: len(step.tokens)]
    logs = step.rows.logits[rows].double().log_softmax(-1)
    return float(sum(logs[i, token] for i, token in enumerate(step.tokens)))
