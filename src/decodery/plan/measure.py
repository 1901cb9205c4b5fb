"""What a forward costs on this machine, and what the engine adds to it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from decodery.core.stop import Stop
from decodery.core.text import TextStream
from decodery.core.tree import TokenTree
from decodery.model.diskcache import kept
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.model.slots import SlotArena

FORMAT = 2
"""Part of what identifies kept costs; raise it when they change their meaning."""


class Curve(NamedTuple):
    """What a forward costs: ``table``, seconds by new tokens when the one before had as many, and ``switch``, what is added
    when it had not (a backend that prepares itself for each shape)."""

    table: dict[int, float]
    switch: float


def cost_curve(model: Model, sizes: Sequence[int] = (1, 4, 8, 16), cached: int = 64, repeats: int = 5) -> Curve:
    """Measure forwards of n new tokens after ``cached`` ones: medians of interleaved repeats, two of a size in a row."""
    session = _warm(model, cached)
    fresh: dict[int, list[float]] = {n: [] for n in sizes}
    steady: dict[int, list[float]] = {n: [] for n in sizes}
    for n in (sizes[0], *list(sizes) * repeats):
        for seconds in (fresh[n], steady[n]):
            tree = _tree(session, n - 1)
            start = perf_counter()
            session.forward(tree)
            seconds.append(perf_counter() - start)
            session.forget()
            session.rewind(len(session.tokens) - 1)
            session.commit([session.tokens[-1]])
    table = {n: statistics.median(times) for n, times in steady.items()}
    return Curve(table, max(0.0, statistics.median(statistics.median(fresh[n]) - table[n] for n in sizes)))


def calibrated(model: Model) -> Curve:
    """``cost_curve`` for the planner: measured in about a second, and kept for the next start."""
    network = model.network
    size = sum(p.numel() for p in network.parameters())
    layers = model.layers and sorted(model.layers, key=str)
    facts = (
        FORMAT,
        model.backend,
        bool(model.linear),
        type(network).__name__,
        size,
        network.dtype,
        network.device,
        layers,
    )
    table, switch = kept("costs", facts, lambda: cost_curve(model, (1, 2, 4, 8, 16)))
    return Curve({int(n): float(seconds) for n, seconds in table.items()}, float(switch))


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


def overhead(model: Model, n: int = 8, steps: int = 12) -> Overhead | None:
    """The engine's own time in greedy steps that verify ``n - 1`` drafts; None where the cache has no slots."""
    from decodery.constrain.free import Free
    from decodery.core.roles import Laws
    from decodery.core.values import LOGITS
    from decodery.draft.jacobi import Jacobi
    from decodery.run.loop import speculate, together
    from decodery.verify.greedy import Greedy

    session = _warm(model, 64)
    if not isinstance(session.arena, SlotArena):
        return None
    bare = Timed(session.arena.backend)
    session.arena.backend = bare
    stop = Stop(context=model.context, text=TextStream(model.text, ("never to be found",)))
    parts = (Jacobi(n - 1), Greedy(), Laws(), Free())
    whole: list[float] = []
    program = together([speculate(session, *parts, _NoChoice(), stop, LOGITS)])
    start = perf_counter()
    for _ in zip(range(steps), program, strict=False):
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


class _NoChoice:
    """Greedy decoding draws nothing."""

    def pick(self, p: Any) -> int:
        raise AssertionError("a greedy law was drawn from")

    def flip(self, a: float) -> bool:
        raise AssertionError("a greedy law was drawn from")

    def noise(self) -> float:
        raise AssertionError("a greedy law was drawn from")

    def fork(self) -> _NoChoice:
        return self


def _warm(model: Model, cached: int) -> Session:
    cached = min(cached, model.context // 4)
    words = [i * 7 % model.vocab for i in range(1, 17)]
    session = model.session((words * (cached // len(words) + 1))[:cached])
    session.forward()
    session.commit(words[:1])
    return session


def _tree(session: Session, drafts: int) -> TokenTree:
    """A caterpillar: half of the drafts deep, half beside them."""
    tree, node = TokenTree(), -1
    for i in range(drafts):
        child = tree.add(session.tokens[i % 16], node if i % 2 == 0 else tree.parents[-1] if len(tree) else -1)
        if i % 2 == 0:
            node = child
    return tree
