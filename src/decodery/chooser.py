"""All randomness goes through a Chooser, so that runs repeat and tests can enumerate every branch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from decodery.words import Chooser, Tensor

R = TypeVar("R", bound=Hashable)


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


@dataclass
class Scripted:
    """Replays a script of choices, then takes the first option of each; records the options it did not take."""

    script: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    untaken: list[list[int]] = field(default_factory=list)
    weight: float = 1.0

    def _choose(self, probabilities: list[float]) -> int:
        options = [i for i, x in enumerate(probabilities) if x > 1e-15]
        turn = len(self.taken)
        replay = turn < len(self.script)
        choice = self.script[turn] if replay else options[0]
        self.taken.append(choice)
        self.untaken.append([] if replay else [i for i in options if i != choice])
        self.weight *= probabilities[choice]
        return choice

    def pick(self, p: Tensor) -> int:
        return self._choose((p.double() / p.double().sum()).tolist())

    def flip(self, a: float) -> bool:
        return bool(self._choose([1.0 - min(a, 1.0), min(a, 1.0)]))

    def noise(self) -> float:
        """One of two values: what is exact for any noise is exact for these, and enumerable."""
        return (0.2, 0.8)[self._choose([0.5, 0.5])]


def enumerate_law(run: Callable[[Chooser], R]) -> dict[R, float]:
    """The exact distribution of ``run``'s result: every branch of its randomness, weighted. For tests on toy models."""
    law: dict[R, float] = defaultdict(float)
    scripts: list[list[int]] = [[]]
    while scripts:
        chooser = Scripted(scripts.pop())
        law[run(chooser)] += chooser.weight
        for turn, options in enumerate(chooser.untaken):
            scripts += [[*chooser.taken[:turn], option] for option in options]
    return dict(law)
