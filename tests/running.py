"""Programs run by hand: what tests of single parts need in place of ``decode``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Program
from decodery.core.plan import OFF, Plan
from decodery.core.roles import Built, Constraint, Drafter, Guide, Laws, Search, Verifier
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import LOGITS, Budget, Want
from decodery.model.arena import Answer, Arena, Feed
from decodery.model.session import Session
from decodery.model.turn import Joint, turn
from decodery.run import loop
from decodery.run.crew import Crew, Failed

T = TypeVar("T")


def speculate(
    session: Session,
    draft: Drafter,
    verify: Verifier,
    laws: Laws,
    constrain: Constraint,
    rng: Chooser,
    stop: Stop,
    want: Want = LOGITS,
    plan: Plan = OFF,
) -> Program:
    """The loop over these very objects: nothing is copied or bound."""
    return loop.speculate(session, Built(draft, verify, laws, constrain, None, want, True, plan), rng, stop)


def search(
    kind: Search,
    session: Session,
    guides: Sequence[Guide],
    constrain: Constraint,
    rng: Chooser,
    stop: Stop,
    want: Want = LOGITS,
) -> Program:
    """A search without drafter and verifier; its session follows the companions of the guides."""
    laws = Laws(tuple(guides)).given(session.tokens)
    session.accompany(laws.companions)
    for guide in guides:
        want |= guide.want
    return kind(session, Built(Drafter(), Verifier(), laws, constrain, None, want, True), rng, stop)


def together(programs: Iterable[Program], joint: Joint | None = None) -> Iterator[tuple[int, Step]]:
    """All steps with the number of their program; raises what a program raises."""
    crew = Crew()
    for i, program in enumerate(programs):
        crew.add(i, program)
    try:
        for i, event in crew.run(joint):
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Step):
                yield i, event
    finally:
        crew.close()


def proposed(draft: Drafter, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
    """What a drafter proposes, the passes it asks for on the way included."""
    return answered(draft.proposing(session, budget, rng))


def observed(draft: Drafter, session: Session, step: Step, rng: Chooser) -> None:
    """Let a drafter learn from a step, the passes it asks for on the way included."""
    answered(draft.observing(session, step, rng))


def answered(asking: Asking[T]) -> T:
    """The result of what asks for passes."""
    try:
        asks = next(asking)
        while True:
            rows = []
            for answer in turn(asks):
                assert answer is not None
                if isinstance(answer, Exception):
                    raise answer
                rows.append(answer)
            asks = asking.send(rows)
    except StopIteration as end:
        value: T = end.value
        return value


@dataclass
class Counts:
    """What an arena computed since it is watched."""

    forwards: int = 0
    positions: int = 0


def counted(arena: Arena) -> Counts:
    """Count the forwards of an arena from now on, and the positions in them."""
    counts, compute = Counts(), arena._compute

    def count(feed: Feed) -> Answer:
        counts.forwards += 1
        counts.positions += len(feed.handles)
        return compute(feed)

    arena._compute = count  # type: ignore[method-assign]
    return counts
