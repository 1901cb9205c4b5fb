"""Several drafters at once: their trees merged into one."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Annotated, Self

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model, ready
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tally import Tally
from decodery.core.tree import TokenTree
from decodery.core.values import SURE, Budget, Scheme
from decodery.model.session import Session
from decodery.plan.acceptance import KEEP, TRUST, Forecast, Rates
from decodery.run.registry import made


@dataclass
class Mix(Drafter):
    """Merges the drafts of several drafters into one tree, shared beginnings stored once: ``mix(ngram,recycling)``.

    ``parts``: the drafters, those whose first guess is best first (default: ngram and recycling). ``nodes``: of the whole
    tree at most; each part may propose as many, and those stay that are likeliest by what came true before of guesses
    alike: by the same parts, of the same kind, at the same place. Merged nodes are certain, so where tokens are sampled
    the parts must be certain too. The memory is that of the parts; what came true is kept
    on this object only.
    """

    paper = "RASD: Retrieval-Augmented Speculative Decoding (Quan et al. 2025), tree fusion"
    accepts = frozenset({Scheme.CERTAIN})
    specimens = ({"parts": ("ngram:min=1,length=2", "recycling"), "nodes": 4},)
    parts: tuple[Drafter, ...] = ()
    nodes: Annotated[int, Ge(1)] = 24
    lore: Tally[tuple[Hashable, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts = self.parts or (made("draft", "ngram"), made("draft", "recycling"))

    def inner(self) -> tuple[Drafter, ...]:
        return self.parts

    def new_lore(self, model: Model) -> Tally[tuple[Hashable, ...]]:
        return Tally(weight=TRUST, keep=KEEP)

    def bind(self, model: Model) -> Self:
        super().bind(model)
        self.parts = tuple(ready(part, model) for part in self.parts)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        # The rows of a batch share what outlives a request only.
        self._running = [copy.copy(part) for part in self.parts]
        self._forecast, self._merged = Forecast(Rates(self.lore)), TokenTree()
        for part in self._running:
            part.begin(session, laws)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        self._merged = tree = TokenTree()
        nodes, guessed = min(self.nodes, budget.nodes), defaultdict[int, dict[int, Hashable]](dict)
        keen = False
        for i, part in enumerate(self._running):
            draft = yield from part.proposing(session, Budget(nodes, budget.depth), rng)
            keen |= draft.keen
            for node, place in tree.graft(draft).items():
                # Who guessed it, and how: a guess that several parts share is likelier than each part's alone.
                guessed[place][i] = draft.kinds[node]
        tree.kinds = [
            SURE if SURE in guessed[node].values() else tuple(guessed[node].items()) for node in range(len(tree))
        ]
        promise = self._forecast.promises(tree)
        best = tree.only(sorted(range(len(tree)), key=lambda node: -promise[node])[:nodes])
        best.keen = keen
        return best

    def observing(self, session: Session, step: Step, rng: Chooser) -> Asking[None]:
        self._forecast.learn(self._merged, step.tokens)
        for part in self._running:
            yield from part.observing(session, step, rng)

    def end(self, session: Session) -> None:
        for part in self._running:
            part.end(session)
