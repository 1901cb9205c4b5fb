"""All randomness goes through a Chooser, so that runs repeat and tests can enumerate every branch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from decodery.core.values import Tensor

R = TypeVar("R", bound=Hashable)


class Chooser(Protocol):
    """Where all randomness comes from (``chooser.py``)."""

    def pick(self, p: Tensor) -> int:
        """An index of ``p`` (``[V]``, non-negative, need not sum to one), never one of probability zero."""

    def flip(self, a: float) -> bool:
        """True with probability ``min(a, 1)``."""

    def noise(self) -> float:
        """A number in (0, 1). It may shape a tree, never choose a token: a law must be exact whatever it is."""

    def fork(self) -> Chooser:
        """A chooser of its own for what runs beside this one, in a thread perhaps: neither takes from the other, so the
        choices of both are the same whoever is first."""


class Seeded:
    """Pseudo-random choices, the same for the same seed.

    A sampled token takes exactly one ``pick``, whatever was drafted by certain drafters: the text of a seed does not
    depend on whether such a drafter helped.
    """

    def __init__(self, *seed: int) -> None:
        self._random = np.random.default_rng(seed or None)

    def pick(self, p: Tensor) -> int:
        mass = np.cumsum(p.detach().cpu().numpy(), dtype=np.float64)
        return int(
            np.searchsorted(mass, min(self._random.random() * mass[-1], np.nextafter(mass[-1], 0)), side="right")
        )

    def flip(self, a: float) -> bool:
        return bool(self._random.random() < a)

    def noise(self) -> float:
        return float(np.clip(self._random.random(), 1e-16, 1 - 1e-16))

    def fork(self) -> Seeded:
        fork = Seeded()
        (fork._random,) = self._random.spawn(1)
        return fork


Turn = tuple[int, ...]
"""Where a choice stands: its number in its chooser, behind the number of the fork that made this chooser, and so on."""
Option = tuple[int, float]
"""What may be chosen, and its chance."""


@dataclass
class Scripted:
    """Replays a script of choices, then takes the first option of each; ``fresh`` records the options it then had.

    A choice is identified by its place, not by the time at which it came, so a script is replayed alike however threads mix.
    """

    script: dict[Turn, Option] = field(default_factory=dict)
    fresh: list[tuple[Turn, list[Option]]] = field(default_factory=list)
    _place: Turn = ()
    _turns: int = 0

    def _turn(self) -> Turn:
        self._turns += 1
        return (*self._place, self._turns - 1)

    def _choose(self, chances: list[float]) -> int:
        if (turn := self._turn()) in self.script:
            return self.script[turn][0]
        options = [(choice, chance) for choice, chance in enumerate(chances) if chance > 1e-15]
        self.fresh.append((turn, options))
        return options[0][0]

    def pick(self, p: Tensor) -> int:
        return self._choose((p.double() / p.double().sum()).tolist())

    def flip(self, a: float) -> bool:
        return bool(self._choose([1.0 - min(a, 1.0), min(a, 1.0)]))

    def noise(self) -> float:
        """One of two values: what is exact for any noise is exact for these, and enumerable."""
        return (0.2, 0.8)[self._choose([0.5, 0.5])]

    def fork(self) -> Scripted:
        return Scripted(self.script, self.fresh, self._turn())


def enumerate_law(run: Callable[[Chooser], R]) -> dict[R, float]:
    """The exact distribution of ``run``'s result: every branch of its randomness, weighted. For tests on toy models."""
    law: dict[R, float] = defaultdict(float)
    scripts: list[dict[Turn, Option]] = [{}]
    while scripts:
        chooser = Scripted(scripts.pop())
        result, script = run(chooser), dict(chooser.script)
        # A copy: a thread that nobody waits for may still choose. What it chose in time is weighted like any choice.
        for turn, (first, *others) in list(chooser.fresh):
            scripts += [{**script, turn: other} for other in others]
            script[turn] = first
        law[result] += math.prod(chance for _, chance in script.values())
    return dict(law)
