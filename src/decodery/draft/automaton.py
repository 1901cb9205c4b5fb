"""The suffix automaton: every substring of a growing text, how often it occurs and where last."""

from __future__ import annotations

LINKS = 32
"""Suffix links followed to count an occurrence, so that a token costs the same in any text. Natural texts have shorter
chains; in a text of one repeated token the counts of its shortest runs are too low, which costs speed only."""


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
