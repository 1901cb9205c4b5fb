"""Cascade: a draft model that is itself decoded speculatively."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model, Program, ready
from decodery.core.roles import Built, Drafter, Laws
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Want, common
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session
from decodery.run.crew import next_step
from decodery.run.loop import speculate
from decodery.run.registry import default, made


@dataclass
class Cascade(Grown):
    """Draws a chain from a draft model that has a drafter of its own, so that several of its tokens cost one forward.

    ``path``, ``layers``: the draft model, as for ``model``. ``length``: tokens of the chain. ``inner_draft``: the drafter
    whose guesses the draft model looks at (default: ngram). ``guess``: maximum inner-draft nodes per forward of the draft
    model. A guess never changes what is drafted: each token is the draft model's own, drawn from its law or the likeliest;
    where a guess equals it, the next law is there already. The memory is that of the inner drafter.
    """

    paper = "Cascade Speculative Drafting for Even Faster LLM Inference (Chen et al. 2023), vertical cascade"
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"path": "toy", "length": 2, "inner_draft": "ngram:min=1,length=2,width=2"}, {"length": 2})
    length: int = 8
    inner_draft: Drafter = default("ngram")
    guess: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or self.guess < 1:
            raise ValueError(f"cascade needs length >= 1 and guess >= 1, not length={self.length}, guess={self.guess}")

    def inner(self) -> tuple[Drafter, ...]:
        return (self.inner_draft,)

    def bind(self, model: Model) -> Self:
        super().bind(model)
        self.inner_draft = ready(self.inner_draft, self._model or model)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        super().begin(session, laws)
        # As the loop does: a one-hot law needs no random number. Neither verifier looks at the q of a guess.
        verify, free = (
            made("verify", "greedy" if self._laws.greedy else "sample-and-match"),
            made("constrain", "none"),
        )
        drafter = copy.copy(self.inner_draft)  # the rows of a batch share what outlives a request only
        self._built = Built(drafter, verify, self._laws, free, None, wanted(drafter), lossless=True)
        self._stop = Stop(nodes=self.guess)
        self._program: Program | None = None

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        # Not settled, though a chain of the same length whatever is drawn: how many passes it took depends on the draws,
        # and so does which rows of a batch are cut together with it.
        self._meet(session)
        if self._program is None:
            self._program = speculate(self._session, self._built, rng, self._stop)
        tree, node, most = self.empty(Scheme.IID), ROOT, min(self.length, *budget)
        while len(tree) < most:
            # The draft model is decoded as any model is; this program goes on where the last draft left it.
            self._stop.emitted, self._stop.max_new_tokens, self._stop.reason = len(tree), most, None
            step = yield from next_step(self._program)
            if step is None or not step.tokens:  # nothing is allowed there
                break
            for place, token in zip((ROOT, *step.verdict.path), step.tokens, strict=False):
                node = tree.add(token, node, None if step.p.greedy else step.p.row(step.rows.at(place) or 0))
        return tree

    def end(self, session: Session) -> None:
        if self._program is not None:
            self._program.close()
        super().end(session)

    def _meet(self, session: Session) -> None:
        """Bring the draft model's text to that of ``session``; accepted drafts keep their place in its cache."""
        if (same := common(self._session.tokens, session.tokens)) < len(self._session.tokens):
            self._session.rewind(same)
        self._session.follow(session)


def wanted(draft: Drafter) -> Want:
    """What a drafter, and those it is made of, want of a pass."""
    want = draft.want
    for part in draft.inner():
        want |= wanted(part)
    return want
