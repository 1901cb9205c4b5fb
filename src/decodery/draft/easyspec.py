"""EasySpec: a draft whose attentions do not wait for one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.errors import PartsClash
from decodery.core.law import Law
from decodery.core.part import Asking, Model
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Cap, Scheme, Tensor
from decodery.draft.lib.draft_model import Thinned
from decodery.model.session import Ask, Session
from decodery.model.variant import LayerSet, Shared, Variant


@dataclass
class EasySpec(Thinned):
    """Draws a tree from a draft model in which ``group`` consecutive attentions read one input, as if run at the same time.

    The first and the last layer wait, and so do all MLPs. On one device this is no faster than waiting: it shows what the
    approximation costs in acceptance, and takes ``2 + ceil((layers - 2) / group)`` stages in place of one a layer.
    ``path``: the draft model, as for ``model``; empty: the target itself. ``length``, ``width``: as for ``model``. What the
    approximation wrote into the cache is given up after each step; the draft model then reads the accepted tokens exactly
    (the paper's calibration), while the target has done so itself. Memory: the draft model's cache, none for the target's.
    """

    paper = "EasySpec: Layer-Parallel Speculative Decoding for Efficient Multi-GPU Utilization (Wu et al. 2025)"
    needs = frozenset[Cap]()  # of the target, which need not be the draft model
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"group": 2, "length": 2}, {"path": "toy", "width": 2, "length": 1})
    path: object = ""
    group: int = 4
    length: int = 3
    width: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.group, self.length, self.width) < 1:
            raise ValueError(
                "easyspec needs group, length and width >= 1, "
                f"not group={self.group}, length={self.length}, width={self.width}"
            )

    def bind(self, model: Model) -> Self:
        self._model = model.companion(self.path) if self.path else None
        draft = self._model or model
        if Cap.HALVES not in draft.can:
            raise PartsClash(f"draft part 'easyspec' needs a draft model with {Cap.HALVES.value}: give another path=")
        self._variant = Variant(grouped(draft.depth, self.group))
        return self

    def open(self, session: Session) -> Session:
        self._exact = session if self._model is None else session.beside(self._model)
        return super().open(self._exact)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        if self._model is None and not self.ready(session):
            return TokenTree()
        return (yield from self.levels(session, budget, rng, [self.width, *[1] * (self.length - 1)], settled=True))

    def after(self, session: Session, tree: TokenTree, nodes: Sequence[int]) -> Asking[list[Tensor | None]]:
        if self._model is None or list(nodes) != [ROOT]:
            return (yield from super().after(session, tree, nodes))
        self._exact.follow(session)
        (rows,) = yield [Ask(self._exact, TokenTree())]
        law = Law(self._laws(rows).logits, greedy=False)  # the calibration starts the next draft
        self._session.follow(self._exact)
        return [law.row(0)]

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        if self._model is not None:
            self._exact.follow(session)
        self._session.follow(self._exact)

    def end(self, session: Session) -> None:
        super().end(session)
        if self._model is not None:
            self._exact.close()


def grouped(depth: int, group: int) -> LayerSet:
    """All layers; those between the first and the last in groups that share an input."""
    groups = [tuple(range(i, min(i + group, depth - 1))) for i in range(1, depth - 1, group)]
    shared = {members[0] if len(members) == 1 else Shared(members) for members in groups}
    return frozenset({0, depth - 1, *shared})
