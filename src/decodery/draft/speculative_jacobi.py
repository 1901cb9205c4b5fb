"""Speculative Jacobi decoding: Jacobi's window for sampled tokens, the model being its own draft model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Self

import torch
from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.part import Model
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Tensor
from decodery.draft.lib.window import rows_along
from decodery.model.session import Session


class Guess(NamedTuple):
    """A token of the window and the law ``[V]`` that it was drawn from; None for a filler, which is certain."""

    token: int
    q: Tensor | None = None


@dataclass
class SpeculativeJacobi(Drafter):
    """Keeps a window of ``window`` guesses, each drawn from what the last pass said about its place, and redraws those left.

    ``fill``: what stands where no pass has looked yet, the token to the left ("repeat") or any token ("random"). A
    redrawn guess is judged by the law it was drawn from, a filler as certain. Where the law is greedy this is ``jacobi``
    on the guided logits. The laws take ``4 * window * V`` bytes (1 MB at a window of 4 and 65k tokens) and go with the
    request.
    """

    paper = (
        "Accelerating Auto-regressive Text-to-Image Generation with Training-free Speculative Jacobi Decoding (Teng et al. "
        "2024), algorithm 1"
    )
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"window": 2}, {"window": 1, "fill": "random"})
    window: Annotated[int, Ge(1)] = 4
    fill: Literal["repeat", "random"] = "repeat"

    def bind(self, model: Model) -> Self:
        self._vocab = model.vocab
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        self._greedy = laws.greedy
        self._guesses: list[Guess] = []

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        length = min(self.window, *budget)
        while len(self._guesses) < length:
            left = self._guesses[-1].token if self._guesses else session.tokens[-1]
            self._guesses.append(Guess(left if self.fill == "repeat" else rng.pick(torch.ones(self._vocab))))
        # The length follows from what is committed and left to say, never from a guess.
        tree, node = TokenTree(scheme=Scheme.CERTAIN if self._greedy else Scheme.IID, settled=True), ROOT
        for token, q in self._guesses[:length]:
            law = torch.zeros(self._vocab).index_fill_(0, torch.tensor(token), 1.0) if q is None else q
            node = tree.add(token, node, None if self._greedy else law, kind=int(q is not None))
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        rows = rows_along(step, (guess.token for guess in self._guesses))  # the i-th one speaks about the i-th guess
        taken = len(step.tokens)
        # The pass did not come to these, so they are still what their laws say, whatever was decided before them.
        beyond = self._guesses[max(taken, len(rows)) :]
        self._guesses = []
        for row in rows[taken:]:
            # Each from the law that now stands at its place, so that the next verdict weighs it by that one: a guess that
            # a pass has judged is never kept. The last row makes a guess that the window did not have.
            if (q := step.p.row(row)) is None:  # a dead row: nothing can stand there or behind
                return
            self._guesses.append(Guess(rng.pick(q), q))
        self._guesses += beyond
