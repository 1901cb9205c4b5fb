"""What early exits of a network would have guessed, and which exit and length to draft with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decodery.core.values import Tensor


@dataclass
class Shadow:
    """What one exit would have guessed lately: how often it was right and wrong, and how sure it was, summed."""

    right: float = 0.0
    wrong: float = 0.0
    sure: float = 0.0
    unsure: float = 0.0

    def add(self, decay: float, right: Tensor, wrong: Tensor) -> None:
        """One pass: how sure the right and the wrong guesses were."""
        self.right, self.sure = decay * self.right + len(right), decay * self.sure + float(right.sum())
        self.wrong, self.unsure = decay * self.wrong + len(wrong), decay * self.unsure + float(wrong.sum())

    @property
    def rate(self) -> float:
        return self.right / (self.right + self.wrong)

    @property
    def threshold(self) -> float:
        """Half way between how sure it is when right and when wrong; nothing stops a draft before both were seen."""
        return (self.sure / self.right + self.unsure / self.wrong) / 2 if self.right > 0 < self.wrong else 0.0


def best(rates: Mapping[int, float], depth: int, longest: int, head: float = 0.0) -> tuple[int, int, float]:
    """The exit and length with most tokens for each layer computed, and how many; ``rates``: exit -> share right."""
    choices = (
        (exit, length, sum(rate**i for i in range(length + 1)) / (depth + head + length * (exit + head)))
        for exit, rate in rates.items()
        for length in range(longest + 1)
    )
    return max(choices, key=lambda choice: choice[2])
