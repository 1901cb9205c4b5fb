"""Prediction by partial matching: how likely each token follows, by what followed the end of a text before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from decodery.draft.lib.automaton import Automaton

CONTEXTS, FOLLOWERS = 8, 64
"""Suffixes of a text that are looked at, and tokens after each."""
SURE = 0.98
"""Shorter suffixes are not asked where this much of the chance is given away."""


class Match(NamedTuple):
    """The longest suffix of a text that an automaton knows.

    ``new``: for how many occurrences the chance of a new token counts, for each token that was seen after a suffix
    (1: method C of prediction by partial matching, Moffat 1990).
    """

    automaton: Automaton
    new: float
    state: int = 0
    length: int = 0

    def then(self, token: int) -> Match:
        """The same after one more token."""
        after, state, length = self.automaton.after, self.state, self.length
        while state and token not in after[state]:
            state = self.automaton.link[state]
            length = self.automaton.length[state]
        known = after[state].get(token)
        return self._replace(state=known or 0, length=0 if known is None else length + 1)

    def followers(self, least: int) -> Iterator[list[tuple[int, int]]]:
        """Tokens and how often each followed: the suffix itself, then its suffixes of ``least`` tokens or more, the longest
        first; of each the ``FOLLOWERS`` tokens first seen last."""
        automaton, state, length = self.automaton, self.state, self.length
        while state and length >= least:
            newest = islice(reversed(automaton.after[state].items()), FOLLOWERS)
            yield [(token, automaton.count[child]) for token, child in newest]
            state = automaton.link[state]
            length = automaton.length[state]


def chances(matches: Iterable[Match], least: int) -> dict[int, float]:
    """How likely each token follows: by the longest suffix; its share for new tokens goes to the next shorter one, down to
    ``least`` tokens; then by the next match."""
    law: dict[int, float] = defaultdict(float)
    rest = 1.0
    for match in matches:
        for followers in islice(match.followers(least), CONTEXTS):
            unseen = match.new * len(followers)
            total = sum(times for _, times in followers) + unseen
            for token, times in followers:
                law[token] += rest * times / total
            rest *= unseen / total if followers else 1.0
            if rest < 1 - SURE:
                return law
    return law
