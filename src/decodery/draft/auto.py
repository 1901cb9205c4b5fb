"""The fastest lossless drafts that need no training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model, ready
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Cap
from decodery.model.session import Session
from decodery.run.registry import made


@dataclass
class Auto(Drafter):
    """Takes the best drafts known for a model without a trained drafter: ``suffix``, and ``mix(schema,suffix)`` where a
    constraint forces some of the text.

    ``mix(suffix,recycling)`` brings no more over many answers, and learns later in a first, short one. Under ``plan="auto"``
    only as much is forwarded as promises to pay. Where the drafts do not fit (a search that explores by itself, a verifier
    for other trees, a model without tree attention), the request runs without any.
    """

    optional = True
    needs = frozenset({Cap.TREE})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._best: Drafter = made("draft", "suffix")
        self._forced: Drafter = made("draft", "mix", parts=(made("draft", "schema"), self._best))

    def inner(self) -> tuple[Drafter, ...]:
        return (self._best, self._forced)

    def bind(self, model: Model) -> Self:
        self._best, self._forced = ready(self._best, model), ready(self._forced, model)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        forces = laws.constrain is not None and laws.constrain.forces
        self._running = copy.copy(self._forced if forces else self._best)  # rows share what outlives a request only
        self._running.begin(session, laws)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        return (yield from self._running.proposing(session, budget, rng))

    def observing(self, session: Session, step: Step, rng: Chooser) -> Asking[None]:
        yield from self._running.observing(session, step, rng)

    def end(self, session: Session) -> None:
        self._running.end(session)
