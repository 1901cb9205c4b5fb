"""Jacobi decoding: what the last pass said about positions not reached yet is the next guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget
from decodery.draft.lib.window import rows_along
from decodery.model.session import Session


@dataclass
class Jacobi(Drafter):
    """Keeps a window of ``window`` guesses and replaces each by the model's likeliest token after the guesses before it.

    The window starts with repetitions of the last token; guesses that the window lacks are filled the same way.
    """

    paper = (
        "Accelerating Transformer Inference for Translation via Parallel Decoding (Santilli et al. 2023), algorithm 1"
    )
    specimens = ({"window": 2},)
    window: Annotated[int, Ge(1)] = 4

    def begin(self, session: Session, laws: Laws) -> None:
        self._guesses: list[int] = []

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        self._guesses = (self._guesses + [session.tokens[-1]] * self.window)[: self.window]
        return TokenTree.chain(self._guesses[: min(budget.nodes, budget.depth)])

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        # Each row along the window speaks about the position after it; the committed tokens took the first ones.
        rows = rows_along(step, self._guesses)
        self._guesses = step.rows.logits[rows[len(step.tokens) :]].argmax(-1).tolist()
