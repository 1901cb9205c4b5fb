"""What the engine adds to the bare forward."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from decodery.core.chooser import Seeded
from decodery.core.stop import Stop
from decodery.core.text import TextStream
from decodery.model.model import Model
from decodery.model.slots import SlotArena
from decodery.plan.costs import warm
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe


@dataclass(frozen=True)
class Overhead:
    """Median milliseconds of a step of ``n`` tokens, and of the bare forward inside it."""

    n: int
    step: float
    forward: float

    @property
    def share(self) -> float:
        """What the engine adds, as a share of the step."""
        return 1 - self.forward / self.step


def overhead(model: Model, n: int = 8, turns: int = 12) -> Overhead | None:
    """The engine's own time in greedy steps that verify ``n - 1`` drafts; None where the cache has no slots."""
    session = warm(model, 64)
    if not isinstance(session.arena, SlotArena):
        return None
    bare = Timed(session.arena.backend)
    session.arena.backend = bare
    stop = Stop(context=model.context, text=TextStream(model.text, ("never to be found",)))
    whole: list[float] = []
    program = launch(build(Recipe.of(draft={"jacobi": {"window": n - 1}}), model), session, Seeded(0), stop)
    start = perf_counter()
    for _, step in zip(range(turns), steps(program), strict=False):
        stop.read(step, session)
        stop.text and stop.text.piece()
        whole.append(perf_counter() - start)
        start = perf_counter()
    return Overhead(n, 1e3 * statistics.median(whole[1:]), 1e3 * statistics.median(bare.seconds[1:]))


class Timed:
    """A backend that books the time of each forward."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.seconds = backend, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def forward(self, store: Any, batch: Any) -> Any:
        start = perf_counter()
        answer = self._backend.forward(store, batch)
        self.seconds.append(perf_counter() - start)
        return answer
