"""SWIFT: which attentions and MLPs a draft leaves out is searched for while decoding."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model
from decodery.core.roles import Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Cap, Scheme, Tensor
from decodery.draft.lib.draft_model import Thinned
from decodery.draft.lib.skip_search import SkipSearch
from decodery.model.session import Ask, Session
from decodery.model.variant import Half, LayerSet, Variant
from decodery.model.view import View

SIBLINGS = ((0.95, 3, 1), (0.8, 5, 3), (0.5, 8, 5), (-1.0, 10, 10))
"""Above this chance of the token that the chain follows: how many children, where the law is greedy and where it is not."""


@dataclass
class Swift(Thinned):
    """Drafts by the target without some attentions and MLPs, and searches for those that it can best do without.

    ``skip``: share of the attentions and MLPs left out; those of the first and last layer always run. A draft has at most
    ``length`` tokens and ends after one of a chance below ``confidence``. ``tree``: the chain's nodes get further children,
    more where the draft was less sure. Every ``interval``-th step (0: never) another set is tried, by one pass over the
    answer's first ``window`` tokens. Candidates are scored by the share of tokens predicted correctly; the best is kept.
    They are random, except every ``bayes``-th, which maximises a Gaussian process's upper confidence bound. The search
    ends at a share above ``enough``, after ``patience`` sets in vain, or ``limit`` in all. ``units``: begin with these left
    out (2i - 2 is the attention of layer i, 2i - 1 its MLP) instead of whole layers evenly spread. Set and search (some
    bytes for each set tried) outlive requests on this object, and
    can be saved.
    """

    paper = "SWIFT: On-the-Fly Self-Speculative Decoding for LLM Inference Acceleration (Xia et al. 2024)"
    needs = frozenset({Cap.LAYERS, Cap.HALVES})
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = (
        {"skip": 0.5, "length": 2, "confidence": 0.4, "window": 1, "interval": 1, "bayes": 2},
        {"skip": 0.5, "length": 1, "tree": True, "interval": 0},
    )
    skip: float = 0.1
    length: int = 25
    confidence: float = 0.8
    tree: bool = False
    window: int = 32
    interval: int = 4
    bayes: int = 25
    enough: float = 0.95
    patience: int = 300
    limit: int = 1000
    units: tuple[int, ...] = field(default=(), kw_only=True)
    lore: SkipSearch = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.skip <= 1 or min(self.length, self.window, self.bayes) < 1 or self.interval < 0:
            raise ValueError(
                "swift needs 0 <= skip <= 1, length, window and bayes >= 1 and interval >= 0, not "
                f"skip={self.skip}, length={self.length}, window={self.window}, bayes={self.bayes}, interval={self.interval}"
            )

    def new_lore(self, model: Model) -> SkipSearch:
        units = 2 * (model.depth - 2)
        if units < 1 or not all(0 <= unit < units for unit in self.units):
            raise ValueError(f"swift: of {model.depth} layers {units} units can be left out, not {list(self.units)}")
        return SkipSearch(units, frozenset(self.units or even(units, int(units * self.skip))), self.bayes)

    def bind(self, model: Model) -> Self:
        self._depth = model.depth
        return super().bind(model)

    def begin(self, session: Session, laws: Laws) -> None:
        self._steps, self._invited, self._variant = 0, False, without(self._depth, self.lore.best)
        super().begin(session, laws)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        tree, node = self.empty(Scheme.DISTINCT), ROOT
        self._invited = budget.nodes > 0
        runners: list[tuple[int, float, Tensor | None]] = []
        for _ in range(min(self.length, *budget) if self.ready(session) else 0):
            (q,) = yield from self.after(session, tree, [node])
            if q is None:
                break
            parent, (node, chance, rest) = node, self.draw(tree, node, q, rng)
            runners.append((parent, chance, rest))
            if chance < self.confidence:
                break
        # Siblings last: the draft need not run through what it does not continue.
        for parent, chance, law in runners if self.tree else ():
            greedy, drawn = next(counts for least, *counts in SIBLINGS if chance > least)
            for _ in range(1, greedy if self._laws.greedy else drawn):
                if law is None or len(tree) >= budget.nodes:
                    break
                _, _, law = self.draw(tree, parent, law, rng)
        return tree

    def observing(self, session: Session, step: Step, rng: Chooser) -> Asking[None]:
        self._session.follow(session)
        self._steps += 1
        found, enough = self.lore, len(session.tokens) > session.prompt + self.window
        # A plan that asks for no drafts would not be served by a search either.
        if enough and self._invited and self.interval and self._steps % self.interval == 0 and not self._done():
            candidate = found.propose(rng.noise())
            found.learn(candidate, (yield from self._matchness(session, candidate)))
        if (best := without(self._depth, found.best)) != self._variant:
            self._session.close()
            self._variant = best
            self._session = self.open(session)

    def _done(self) -> bool:
        found = self.lore
        return found.score > self.enough or found.idle > self.patience or len(found.tried) > self.limit

    def _matchness(self, session: Session, skipped: frozenset[int]) -> Asking[float]:
        """How many of the answer's first tokens the target predicts without these units, from the cache of the prompt."""
        start = session.prompt + 1
        known = session.tokens[start : start + self.window]
        with closing(View(session, without(self._depth, skipped), start)) as view:
            (rows,) = yield [Ask(view, TokenTree.chain(known[:-1]))]
        guesses = self._laws(rows).best
        return sum(guess == token for guess, token in zip(guesses, known, strict=True)) / len(known)


def even(units: int, count: int) -> set[int]:
    """The attentions and MLPs of whole layers at even distances; where ``count`` is odd, one attention more."""
    layers = count // 2
    chosen = {2 * ((2 * i + 1) * units // (4 * layers)) + half for i in range(layers) for half in (0, 1)}
    return chosen | set([unit for unit in range(0, units, 2) if unit not in chosen][: count % 2])


def without(depth: int, skipped: Iterable[int]) -> Variant:
    """The network without these units."""
    kept = set(range(2 * depth)) - {unit + 2 for unit in skipped}
    whole: LayerSet = frozenset(i for i in range(depth) if {2 * i, 2 * i + 1} <= kept)
    return Variant(whole | {Half(unit // 2, attends=unit % 2 == 0) for unit in kept if unit ^ 1 not in kept})
