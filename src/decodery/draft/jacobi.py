"""Jacobi decoding: what the last pass said about positions not reached yet is the next guess."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decodery.law import Laws
from decodery.model.session import Session
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Chooser, Drafter, Step


@dataclass
class Jacobi(Drafter):
    """Keeps a window of ``window`` guesses and replaces each by the model's likeliest token after the guesses before it.

    The window starts with repetitions of the last token; guesses that the window lacks are filled the same way.
    """

    paper = (
        "Accelerating Transformer Inference for Translation via Parallel Decoding (Santilli et al. 2023), algorithm 1"
    )
    specimens = ({"window": 2},)
    window: int = 4

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"jacobi needs window >= 1, not {self.window}")

    def begin(self, session: Session, laws: Laws) -> None:
        self._guesses: list[int] = []

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        self._guesses = (self._guesses + [session.tokens[-1]] * self.window)[: self.window]
        return TokenTree.chain(self._guesses[: min(budget.nodes, budget.depth)])

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        # Each row along the window speaks about the position after it; the committed tokens took the first ones.
        rows = rows_along(step, self._guesses)
        self._guesses = step.rows.logits[rows[len(step.tokens) :]].argmax(-1).tolist()


def rows_along(step: Step, tokens: Iterable[int]) -> list[int]:
    """The row after the last committed token and those after each of these tokens, as far as the pass followed them.

    The tree may hold other drafts beside them, or less than all of them.
    """
    rows, node = [0], ROOT
    for token in tokens:
        node = next((child for child in step.tree.children(node) if step.tree.tokens[child] == token), ROOT)
        if node == ROOT or (row := step.rows.at(node)) is None:
            break
        rows.append(row)
    return rows
