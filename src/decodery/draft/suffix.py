"""Suffix decoding: what followed the longest suffixes that occurred before, and shorter ones where those are new."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge, Gt

from decodery.core.chooser import Chooser
from decodery.core.part import Model
from decodery.core.roles import Drafter, Laws
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, common
from decodery.draft.lib.automaton import Automaton
from decodery.draft.lib.earlier_texts import Past
from decodery.draft.lib.store import REACH, Store, heaviest
from decodery.draft.lib.suffix_matching import Match, chances
from decodery.model.session import Session

WIDEST = 8
"""Tokens drafted below one node."""
NEW_HERE, NEW_BEFORE = 0.5, 5.0
"""How much is left to new tokens after suffixes of this request and of those before: another text tells less."""
HITS = 64
"""Occurrences in the corpus that are counted, evenly taken."""
CORPUS = "corpus"
"""Part of the kind of what the corpus gave, so that the planner tells it from the request's own."""


@dataclass
class Suffix(Drafter):
    """Drafts what followed suffixes of the text before, likeliest paths first.

    The chance of a token is how often it followed the longest suffix known; what is left for new ones goes to the next
    shorter suffix (prediction by partial matching), first in this request's text, then in those of earlier requests.
    ``min``: shortest suffix. ``factor``: a suffix of n tokens may draft ``factor * n`` nodes, at most ``nodes``: long
    matches are trusted further. The text takes about 550 bytes a token (5 MB at 8k) and goes with the request; ``recall``:
    so many tokens of requests on this object outlive them (18 MB), saved 4 bytes each. ``corpus``: a directory made by
    ``decodery index``, or an open ``Store``; its continuations are drafted where they promise more.
    """

    paper = "SuffixDecoding (Oliaro et al. 2024), on the automaton of SAM Decoding (Hu et al. 2024)"
    specimens = (
        {"nodes": 3, "factor": 2.0, "recall": 0},
        {"nodes": 3, "corpus": Store.of([[0, 1, 2, 0, 1, 0, 2, 1]], "toy 3")},
    )
    min: Annotated[int, Ge(1)] = 1
    nodes: Annotated[int, Ge(1)] = 16
    factor: Annotated[float, Gt(0)] = 4.0
    recall: Annotated[int, Ge(0)] = 1 << 15
    corpus: str | Path | Store = ""
    lore: Past = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._corpus: Store | None = None
        self._opened: list[Store] = []
        """The corpus, once it is open: for all requests."""

    def new_lore(self, model: Model) -> Past:
        return Past(self.recall)

    def bind(self, model: Model) -> Self:
        super().bind(model)
        if self.corpus:
            self._corpus = Store.fit(self.corpus, model, self._opened)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        with self.lore.lock:
            self._text = self.lore.open()
            self._read(session.tokens)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        with self.lore.lock:
            self._read(session.tokens)
            tree, promise = self._expand(budget) if min(budget) > 0 else (TokenTree(), 0.0)
        if self._corpus is not None:
            recalled, more = self._recall(self._corpus, session.tokens, budget)
            if more > promise:
                return recalled
        return tree

    def _read(self, tokens: Sequence[int]) -> None:
        text = self._text
        if not text.tokens or common(text.tokens, tokens) < len(text.tokens):  # the request begins, or was taken back
            text.tokens, text.read, text.last = [], 0, 0
            self._own, self._last, self._before = Automaton(), 0, Match(self.lore.automaton, NEW_BEFORE)
        for token in tokens[len(text.tokens) :]:
            self._last = self._own.add(token, self._last)
            self._before = self._before.then(token)
            text.tokens.append(token)

    def _recall(self, corpus: Store, tokens: Sequence[int], budget: Budget) -> tuple[TokenTree, float]:
        """What most often followed the longest suffix that the corpus holds, and how many of its tokens should be accepted."""
        length, places = corpus.find(tokens[-REACH:], self.min)
        nodes = min(self.nodes, int(self.factor * length), budget.nodes)
        if not places or nodes < 1:
            return TokenTree(), 0.0
        sample = places[:: -(-len(places) // HITS)]
        return heaviest(corpus.following(sample, length, min(nodes, budget.depth)), nodes, (CORPUS, length))

    def _expand(self, budget: Budget) -> tuple[TokenTree, float]:
        """The likeliest paths, and how many of their tokens should be accepted.

        Their kinds tell the length of the match and, in quarters, how likely each token was.
        """
        tree, promise = TokenTree(), 0.0
        state = max(self._own.link[self._last], 0)  # the longest suffix that also ends elsewhere
        matches: tuple[Match, ...] = (Match(self._own, NEW_HERE, state, self._own.length[state]), self._before)
        length = max(match.length for match in matches)
        if length < self.min:
            return tree, promise
        nodes = min(self.nodes, max(1, int(self.factor * length)), budget.nodes)
        waiting: list[tuple[float, int, int, int, tuple[int, int], tuple[Match, ...]]] = []
        order = count()

        def widen(matches: tuple[Match, ...], parent: int, chance: float) -> None:
            law = chances(matches, self.min)
            for token in heapq.nlargest(WIDEST, law, key=law.__getitem__):
                kind = min(length, 7), int(4 * law[token])
                heapq.heappush(waiting, (-chance * law[token], next(order), parent, token, kind, matches))

        widen(matches, ROOT, 1.0)
        while waiting and len(tree) < nodes:
            negative, _, parent, token, kind, matches = heapq.heappop(waiting)
            node = tree.add(token, parent, kind=kind)
            promise -= negative
            if tree.depths[node] < budget.depth:
                widen(tuple(match.then(token) for match in matches), node, -negative)
        return tree, promise
