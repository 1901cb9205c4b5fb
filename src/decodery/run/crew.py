"""Programs that run together: whoever holds a crew gathers what its programs ask for and hands the rows back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from decodery.core.part import Asking, Program
from decodery.core.step import Step
from decodery.core.values import Rows
from decodery.model.session import Ask
from decodery.model.turn import Joint, turn

Key = int


class Ended(NamedTuple):
    """A program came to its end."""


class Failed(NamedTuple):
    """A program, or a pass that it asked for, raised."""

    error: Exception


Event = Step | Ended | Failed
ENDED = Ended()


@dataclass
class _Member:
    """A program, what it asks for, and what it was told so far."""

    program: Program
    asks: list[Ask] = field(default_factory=list)
    rows: list[Rows | None] = field(default_factory=list)
    error: Exception | None = None
    begun: bool = False


class Crew:
    """Programs that nest, join and leave. One program's exception is its own: the others go on.

    A driver turns ``asks`` into rows and passes them to ``tell`` until no program is left; a search that holds a crew
    yields ``asks()`` and is itself told.
    """

    def __init__(self) -> None:
        self._members: dict[Key, _Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, key: Key, program: Program) -> None:
        """Let a program join; it begins with the next ``tell``."""
        self._members[key] = _Member(program)

    def cancel(self, key: Key) -> None:
        """Close a program, which gives its nodes up; nothing happens where it has left already."""
        if (member := self._members.pop(key, None)) is not None:
            member.program.close()

    def close(self) -> None:
        """Cancel all."""
        for key in list(self._members):
            self.cancel(key)

    def asks(self) -> list[Ask]:
        """What is asked for and not answered yet."""
        return [ask for member in self._members.values() for ask in self._open(member)]

    def tell(self, answers: Sequence[Rows | Exception | None]) -> Iterator[tuple[Key, Event]]:
        """Answers in the order of ``asks()``; yields what each program makes of them.

        A program goes on once all that it asked for is there. It has not gone on when its step is yielded, so whoever reads
        the step may still end the answer, or cancel this program or others.
        """
        waiting = iter(answers)
        for member in self._members.values():
            for place, row in enumerate(member.rows):
                if row is None and (answer := next(waiting)) is not None:
                    if isinstance(answer, Exception):
                        member.error = answer
                    else:
                        member.rows[place] = answer
        for key in list(self._members):
            yield from self._advance(key)

    def run(self, joint: Joint | None = None, seen: Callable[[], None] | None = None) -> Iterator[tuple[Key, Event]]:
        """Run all programs to their end, one turn after another; ``seen`` is called after the passes of each turn."""
        while self:
            answers = turn(self.asks(), joint)
            if seen is not None:
                seen()
            yield from self.tell(answers)

    def _open(self, member: _Member) -> list[Ask]:
        return [ask for ask, row in zip(member.asks, member.rows, strict=True) if row is None]

    def _advance(self, key: Key) -> Iterator[tuple[Key, Event]]:
        """Run one program up to its next question, if it was told all that it asked for."""
        member = self._members.get(key)
        if member is None or (member.error is None and None in member.rows):
            return
        try:
            if member.error is not None:
                error, member.error = member.error, None
                said = member.program.throw(error)
            else:
                rows = [row for row in member.rows if row is not None]
                said = member.program.send(rows) if member.begun else next(member.program)
            member.begun = True
            while isinstance(said, Step):
                yield key, said
                if self._members.get(key) is not member:  # cancelled meanwhile
                    return
                said = next(member.program)
            member.asks, member.rows = said, [None] * len(said)
        except StopIteration:
            del self._members[key]
            yield key, ENDED
        except Exception as error:
            del self._members[key]
            yield key, Failed(error)


def steps(program: Program) -> Iterator[Step]:
    """The steps of one program that runs alone; raises what it raises."""
    crew = Crew()
    crew.add(0, program)
    try:
        for _, event in crew.run():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Step):
                yield event
    finally:
        crew.close()


def next_step(program: Program) -> Asking[Step | None]:
    """Run a program inside another one up to its next step; None where it has ended."""
    try:
        said = next(program)
        while not isinstance(said, Step):
            said = program.send((yield said))
    except StopIteration:
        return None
    return said
