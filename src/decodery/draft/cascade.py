"""Cascade: a draft model that is itself decoded speculatively."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws, Model, Verifier
from decodery.core.step import Step
from decodery.core.tree import EMPTY, ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Want
from decodery.draft.lib.draft_model import Grown
from decodery.draft.ngram import NGram
from decodery.model.session import Session
from decodery.verify.greedy import Greedy
from decodery.verify.sample_and_match import SampleAndMatch


@dataclass
class Cascade(Grown):
    """Draws a chain from a draft model that has a drafter of its own, so that several of its tokens cost one forward.

    ``path``, ``layers``: the draft model, as for ``model``. ``length``: tokens of the chain. ``inner_draft``: the drafter
    whose guesses the draft model looks at (default: ngram). ``guess``: their nodes in one of its forwards at most. A guess
    never changes what is drafted: each token is the draft model's own, drawn from its law or the likeliest, and a guess it
    happens to equal has the next law ready. The memory is that of the inner drafter.
    """

    paper = "Cascade Speculative Drafting for Even Faster LLM Inference (Chen et al. 2023), vertical cascade"
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"path": "toy", "length": 2, "inner_draft": NGram(min=1, length=2, width=2)}, {"length": 2})
    length: int = 8
    inner_draft: Drafter = field(default_factory=NGram)
    guess: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or self.guess < 1:
            raise ValueError(f"cascade needs length >= 1 and guess >= 1, not length={self.length}, guess={self.guess}")

    def inner(self) -> tuple[Drafter, ...]:
        return (self.inner_draft,)

    def bind(self, model: Model) -> Self:
        super().bind(model)
        self.inner_draft = self.inner_draft.bind(self._model or model)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        super().begin(session, laws)
        self._session.follow(session)
        self._want = wanted(self.inner_draft)
        # As the loop does: a one-hot law needs no random number. Neither verifier looks at the q of a guess.
        self._verify: Verifier = Greedy() if self._laws.greedy else SampleAndMatch()
        self._guesser = copy.copy(self.inner_draft)  # the rows of a batch share what outlives a request only
        self._guesser.begin(self._session, self._laws)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        # Settled: a chain of the same length whatever is drawn, and a guess changes no token of it.
        self._meet(session)
        tree, node, most = self.empty(Scheme.IID, settled=True), ROOT, min(self.length, *budget)
        while len(tree) < most:
            room = Budget(self.guess, most - len(tree) - 1)  # one token always comes from the draft model
            guess = self._guesser.propose(self._session, room, rng) if room.depth else EMPTY
            rows = self._session.forward(guess, self._want)
            law = self._laws(rows)
            verdict = self._verify(guess, law, rows, rng)
            if not (tokens := verdict.tokens(guess)):  # nothing is allowed there
                break
            for place, token in zip((ROOT, *verdict.path), tokens, strict=False):
                node = tree.add(token, node, None if law.greedy else law.row(rows.at(place) or 0))
            self._session.commit(tokens)
            self._guesser.observe(self._session, Step(guess, rows, law, verdict, tokens), rng)
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        self._meet(session)

    def _meet(self, session: Session) -> None:
        """Bring the draft model's text to that of ``session``; drafts that stood keep their place in its cache."""
        drafted, text = self._session.tokens, session.tokens
        if drafted != text[: len(drafted)]:
            same = (mine == theirs for mine, theirs in zip(drafted, text, strict=False))
            self._session.rewind(sum(takewhile(bool, same)))
        self._session.follow(session)


def wanted(draft: Drafter) -> Want:
    """What a drafter, and those it is made of, want of a pass."""
    want = draft.want
    for part in draft.inner():
        want |= wanted(part)
    return want
