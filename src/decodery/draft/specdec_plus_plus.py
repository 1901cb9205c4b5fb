"""SpecDec++: how long a draft gets is decided token by token."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import torch

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model
from decodery.core.step import Step
from decodery.core.tally import Tally
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Tensor
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session

EDGES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
"""Borders (nats) of the bins in which entropies are counted."""


@dataclass
class SpecDecPlusPlus(Grown):
    """Draws a chain until the chance that one of its tokens is refused passes ``threshold``; the last is still sent.

    ``path``, ``layers``: the draft model, as for ``model``. ``min``, ``max``: bounds of the length. In place of the paper's
    trained head, a token's acceptance is predicted from the entropy of the draft's law: the mean acceptance seen at such
    entropies, kept across requests on this object. ``prior``: the acceptance assumed where nothing was seen, worth
    ``weight`` observations.
    """

    paper = "SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths (Huang et al. 2024)"
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"path": "toy", "min": 1, "max": 2, "threshold": 0.4},)
    threshold: float = 0.7
    min: int = 2
    max: int = 20
    prior: float = 0.8
    weight: float = 4.0
    lore: Tally[tuple[int]] = field(init=False, repr=False, compare=False)
    """The acceptance seen in each band of entropy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1 or not 1 <= self.min <= self.max:
            raise ValueError(
                f"specdec++ needs 0 <= threshold <= 1 and 1 <= min <= max, "
                f"not threshold={self.threshold}, min={self.min}, max={self.max}"
            )
        if not 0 < self.prior <= 1 or self.weight <= 0:
            raise ValueError(f"specdec++ needs 0 < prior <= 1 and weight > 0, not {self.prior} and {self.weight}")

    def new_lore(self, model: Model) -> Tally[tuple[int]]:
        return Tally(self.prior, self.weight, width=1)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        tree, node, stands = self.empty(Scheme.IID), ROOT, 1.0
        self._bands: list[int] = []
        for _ in range(min(self.max, *budget)):
            (q,) = yield from self.after(session, tree, [node])
            if q is None:
                break
            node, _, _ = self.draw(tree, node, q, rng)
            self._bands.append(band(q))
            stands *= self.lore.rate((self._bands[-1],))
            if len(tree) >= self.min and 1 - stands > self.threshold:
                break
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        # Every forwarded draft teaches, refused ones and those behind them as well: a law stands at each of them.
        for node, which in zip(range(len(step.tree)), self._bands, strict=False):
            row = step.rows.at(step.tree.parents[node])
            if row is not None and (p := step.p.row(row)) is not None:
                q = step.tree.q[node]
                stood = p[step.tree.tokens[node]] if q is None else torch.minimum(p, q.to(p)).sum()
                self.lore.book((which,), float(stood))
        self._session.follow(session)


def band(q: Tensor) -> int:
    """Which entropies ``q`` belongs to."""
    return bisect.bisect(EDGES, float(torch.special.entr(q).sum()))
