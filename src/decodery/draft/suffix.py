"""Suffix decoding: the longest suffix that occurred before, and how often each continuation followed it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from decodery.law import Laws
from decodery.model.session import Session
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Chooser, Drafter

LINKS = 32
"""Suffix links followed to count an occurrence, so that a token costs the same in any text. Natural texts have shorter
chains; in a text of one repeated token the counts of its shortest runs are too low, which costs speed only."""
MATCHES = 6
"""Suffix lengths compared in one step."""
WIDEST = 8
"""Continuations looked at below one node."""


class Automaton:
    """The suffix automaton of a growing text: all substrings, those that end at the same places in one state.

    State 0 is the empty string. For each state: its transitions, the longest suffix of another state (``link``), the
    length of its longest string, how often it occurs, and where it ended last. At most two states a token.
    """

    def __init__(self) -> None:
        self.after: list[dict[int, int]] = [{}]
        self.link, self.length, self.count, self.latest = [-1], [0], [0], [0]
        self.last = 0

    def add(self, token: int) -> None:
        """Append a token; amortised constant time (Blumer et al. 1985)."""
        fresh = self._state({}, 0, self.length[self.last] + 1, 0)
        state, self.last = self.last, fresh
        while state >= 0 and token not in self.after[state]:
            self.after[state][token] = fresh
            state = self.link[state]
        if state >= 0:
            target = self.after[state][token]
            if self.length[target] > self.length[state] + 1:
                target = self._split(state, token, target)
            self.link[fresh] = target
        for _ in range(LINKS):
            if fresh <= 0:
                break
            self.count[fresh] += 1
            self.latest[fresh] = self.length[self.last]
            fresh = self.link[fresh]

    def _split(self, state: int, token: int, target: int) -> int:
        """The part of ``target`` that also ends here, as a state of its own."""
        clone = self._state(dict(self.after[target]), self.link[target], self.length[state] + 1, self.count[target])
        self.link[target] = clone
        while state >= 0 and self.after[state].get(token) == target:
            self.after[state][token] = clone
            state = self.link[state]
        return clone

    def _state(self, after: dict[int, int], link: int, length: int, count: int) -> int:
        self.after.append(after)
        self.link.append(link)
        self.length.append(length)
        self.count.append(count)
        self.latest.append(0)
        return len(self.link) - 1


@dataclass
class Suffix(Drafter):
    """Finds suffixes of the text that occurred before and drafts what followed, likeliest first by how often it did.

    ``min``: shortest suffix. ``factor``: a suffix of n tokens may draft ``factor * n`` nodes, at most ``nodes``: long
    matches are trusted further. Of several suffixes the tree counts whose nodes promise most tokens. The automaton takes
    about 550 bytes a token of the request (5 MB at 8k) and goes with it.
    """

    paper = "SuffixDecoding (Oliaro et al. 2024), on the automaton of SAM Decoding (Hu et al. 2024)"
    specimens = ({"nodes": 3, "factor": 2.0},)
    min: int = 1
    nodes: int = 16
    factor: float = 4.0

    def __post_init__(self) -> None:
        if self.min < 1 or self.nodes < 1 or not self.factor > 0:
            raise ValueError(f"suffix needs min >= 1, nodes >= 1 and factor > 0, not {self}")

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
        return best

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
