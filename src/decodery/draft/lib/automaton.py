"""The suffix automaton: every substring of some growing texts, and how often it occurs."""

from __future__ import annotations

LINKS = 32
"""Suffix links followed to count an occurrence, so that a token costs the same in any text. Natural texts have shorter
chains; in a text of one repeated token the counts of its shortest runs are too low, which costs speed only."""


class Automaton:
    """The suffix automaton of growing texts: all substrings, those that end at the same places in one state.

    State 0 is the empty string. For each state: its transitions, the longest suffix of another state (``link``), the
    length of its longest string, and how often it occurs. At most two states a token.
    """

    def __init__(self) -> None:
        self.after: list[dict[int, int]] = [{}]
        self.link, self.length, self.count = [-1], [0], [0]

    def add(self, token: int, last: int = 0) -> int:
        """Append a token to the text that ``last`` stands for, 0 for a new one; returns what stands for it now.

        Amortised constant time (Blumer et al. 1985; several texts: Mohri et al. 2009).
        """
        state, whole = last, self.after[last].get(token)
        if whole is None:
            whole = self._state({}, 0, self.length[last] + 1, 0)
            while state >= 0 and token not in self.after[state]:
                self.after[state][token] = whole
                state = self.link[state]
            if state >= 0:
                self.link[whole] = self._exact(state, token)
        else:  # another text went this way before
            whole = self._exact(last, token)
        suffix = whole
        for _ in range(LINKS):
            if suffix <= 0:
                break
            self.count[suffix] += 1
            suffix = self.link[suffix]
        return whole

    def _exact(self, state: int, token: int) -> int:
        """The state whose longest string is that of ``state`` and the token; split off where there is none yet."""
        target = self.after[state][token]
        if self.length[target] == self.length[state] + 1:
            return target
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
        return len(self.link) - 1
