"""Suffix decoding: the longest suffix that occurred before, and how often each continuation followed it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from decodery.draft.automaton import Automaton
from decodery.draft.datastore import heaviest
from decodery.law import Laws
from decodery.model.session import Session
from decodery.store import REACH, Store
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Chooser, Drafter, Model

MATCHES = 6
"""Suffix lengths compared in one step."""
HITS = 64
"""Occurrences in the corpus that are counted, evenly taken."""
CORPUS = 100
"""Added to the kind of what the corpus gave, so that the planner tells it from the request's own."""
WIDEST = 8
"""Continuations looked at below one node."""


@dataclass
class Suffix(Drafter):
    """Finds suffixes of the text that occurred before and drafts what followed, likeliest first by how often it did.

    ``min``: shortest suffix. ``factor``: a suffix of n tokens may draft ``factor * n`` nodes, at most ``nodes``: long
    matches are trusted further. Of several suffixes the tree counts whose nodes promise most tokens. The automaton takes
    about 550 bytes a token of the request (5 MB at 8k) and goes with it. ``corpus``: a directory made by ``decodery index``,
    or an open ``Store``, shared by all requests; its continuations are drafted where they promise more than the request's.
    """

    paper = "SuffixDecoding (Oliaro et al. 2024), on the automaton of SAM Decoding (Hu et al. 2024)"
    specimens = ({"nodes": 3, "factor": 2.0}, {"nodes": 3, "corpus": Store.of([[0, 1, 2, 0, 1, 0, 2, 1]], "toy 3")})
    min: int = 1
    nodes: int = 16
    factor: float = 4.0
    corpus: object = ""

    def __post_init__(self) -> None:
        if self.min < 1 or self.nodes < 1 or not self.factor > 0:
            raise ValueError(f"suffix needs min >= 1, nodes >= 1 and factor > 0, not {self}")
        if not isinstance(self.corpus, (str, Path, Store)):
            raise ValueError("suffix takes corpus=STORE, a directory made by: decodery index FILES -o STORE")
        self._corpus: Store | None = None

    def bind(self, model: Model) -> Self:
        if self.corpus:
            self._corpus = Store.fit(self._corpus or self.corpus, model)  # opened once: that reads all of it
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        self._automaton = Automaton()
        self._read(session.tokens)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        self._read(session.tokens)
        best, most = TokenTree(), 0.0
        state = self._automaton.link[self._automaton.last]  # the longest suffix that also ends elsewhere
        for _ in range(MATCHES):
            length = self._automaton.length[state] if state > 0 else 0
            if length < self.min:
                break
            nodes = min(self.nodes, max(1, int(self.factor * length)), budget.nodes)
            if nodes <= most:  # a shorter suffix can promise no more
                break
            tree, promise = self._expand(state, nodes, budget.depth, 4 * min(length, 7))
            if promise > most:
                best, most = tree, promise
            state = self._automaton.link[state]
        if self._corpus is not None:
            tree, promise = self._recall(self._corpus, session.tokens, budget)
            if promise > most:
                best = tree
        return best

    def _recall(self, corpus: Store, tokens: Sequence[int], budget: Budget) -> tuple[TokenTree, float]:
        """What most often followed the longest suffix that the corpus holds, and how many of its tokens should stand."""
        length, places = corpus.find(tokens[-REACH:], self.min)
        nodes = min(self.nodes, int(self.factor * length), budget.nodes)
        if not places or min(nodes, budget.depth) < 1:
            return TokenTree(), 0.0
        sample = places[:: -(-len(places) // HITS)]
        return heaviest(corpus.following(sample, length, min(nodes, budget.depth)), nodes, CORPUS + length)

    def _expand(self, state: int, nodes: int, depth: int, kind: int) -> tuple[TokenTree, float]:
        """The likeliest continuations of a state, best first, and how many of them should stand.

        Their kinds tell the length of the match and, in quarters, how often each followed.
        """
        automaton, tree, promise = self._automaton, TokenTree(), 0.0
        count, latest = automaton.count, automaton.latest
        waiting: list[tuple[float, int, int, int, int, int]] = []

        def widen(state: int, parent: int, chance: float) -> None:
            ranked = [(count[child], latest[child], token, child) for token, child in automaton.after[state].items()]
            total = sum(entry[0] for entry in ranked)
            ranked.sort(reverse=True)
            for rank, (times, _, token, child) in enumerate(ranked[:WIDEST]):
                heapq.heappush(waiting, (-chance * times / total, rank, parent, token, child, 3 * times // total))

        if nodes > 0 and depth > 0:
            widen(state, ROOT, 1.0)
        while waiting and len(tree) < nodes:
            negative, _, parent, token, child, often = heapq.heappop(waiting)
            node = tree.add(token, parent, kind=kind + often)
            promise -= negative
            if tree.depths[node] < depth:
                widen(child, node, -negative)
        return tree, promise

    def _read(self, tokens: Sequence[int]) -> None:
        known = self._automaton.length[self._automaton.last]
        if len(tokens) < known:  # the text was taken back
            self._automaton, known = Automaton(), 0
        for token in tokens[known:]:
            self._automaton.add(token)
