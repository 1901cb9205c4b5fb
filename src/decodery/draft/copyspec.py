"""CopySpec: where the last tokens stood before, what followed them is copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, common
from decodery.model.session import Session

BASE, MODULUS = 1_000_003, (1 << 61) - 1
"""Of the rolling hash. A collision costs a wrong guess and nothing else."""
SHORTEST = 2


@dataclass
class CopySpec(Drafter):
    """Copies what followed an earlier occurrence of the last ``gamma`` tokens of the conversation, found by a rolling hash.

    ``copy``: tokens copied at most; a copy is twice as long as the accepted part of the last one, so it shrinks where copies
    fail and is whole again after a few that were accepted. ``pick``: copy from the "first" occurrence, as published, or from
    the "latest". The table takes about 120 bytes for each different gamma-gram of the request (1 MB at 8k tokens) and
    goes with it.
    """

    paper = (
        "CopySpec: Accelerating LLMs with Speculative Copy-and-Paste Without Compromising Quality (Dumitru et al. 2025)"
    )
    specimens = ({"gamma": 1, "copy": 2}, {"gamma": 2, "copy": 2, "pick": "latest"})
    gamma: Annotated[int, Ge(1)] = 3
    copy: Annotated[int, Ge(1)] = 10
    pick: Literal["first", "latest"] = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._leaving = pow(BASE, self.gamma, MODULUS)

    def begin(self, session: Session, laws: Laws) -> None:
        self._after: dict[int, int] = {}
        self._hash: int = 0
        self._read: list[int] = []
        self._length = self.copy
        self._copied: list[int] = []
        self._index(session.tokens)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        self._index(session.tokens)
        start = (
            self._after.get(self._hash, len(session.tokens)) if len(self._read) >= self.gamma else len(session.tokens)
        )
        self._copied = session.tokens[start : start + max(0, min(self._length, *budget))]
        return TokenTree.chain(self._copied)

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        stood = 0
        while stood < min(len(self._copied), len(step.tokens)) and self._copied[stood] == step.tokens[stood]:
            stood += 1
        ended_first = stood == len(step.tokens) < len(self._copied)  # the step ended before the copy was judged
        if self._copied and not ended_first:
            self._length = min(max(2 * stood, SHORTEST), self.copy)

    def _index(self, tokens: list[int]) -> None:
        """Roll the hash on; a gamma-gram is booked with the place behind it once a token stands there."""
        if common(self._read, tokens) < len(self._read):  # the text was taken back
            self._after, self._hash, self._read = {}, 0, []
        for i in range(len(self._read), len(tokens)):
            if i >= self.gamma and (self.pick == "latest" or self._hash not in self._after):
                self._after[self._hash] = i
            leaving = tokens[i - self.gamma] if i >= self.gamma else 0
            self._hash = (self._hash * BASE + tokens[i] - leaving * self._leaving) % MODULUS
        self._read += tokens[len(self._read) :]
