"""The texts of earlier requests, as one automaton."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, groupby

import numpy as np

from decodery.core.lore import Arrays, Lore
from decodery.core.values import NO_TOKEN, Array
from decodery.draft.lib.automaton import Automaton


@dataclass
class Text:
    """The tokens of a request: it appends to them, and how many of them are in the automaton already."""

    tokens: list[int] = field(default_factory=list)
    read: int = 0
    last: int = 0


@dataclass
class Past(Lore):
    """Reads each request's tokens when the next one begins, so no step waits for it; keeps the newest ``limit`` tokens.

    Beyond that the oldest are forgotten, half of the room at once, for the automaton must be built anew. In all methods, and
    while its automaton is read, the caller holds the lock.
    """

    limit: int
    texts: list[Text] = field(default_factory=list)
    automaton: Automaton = field(default_factory=Automaton)

    def open(self) -> Text:
        """A new request begins: what the others have by now is known to it, its own tokens to those after it."""
        # A token needs one state or two; where they are more than the texts need, texts were taken back.
        if sum(len(text.tokens) for text in self.texts) > self.limit or len(self.automaton.link) > 2 * self.limit + 1:
            self.replace(self.texts, self.limit // 2)
        for text in self.texts:
            for token in text.tokens[text.read :]:
                text.last = self.automaton.add(token, text.last)
            text.read = len(text.tokens)
        self.texts.append(Text())
        return self.texts[-1]

    def replace(self, texts: Iterable[Text], room: int) -> None:
        """Begin anew with the newest ``room`` tokens of these texts; requests under way keep what they know."""
        kept: list[Text] = []
        for text in reversed(list(texts)):
            if room <= 0:
                break
            kept.append(text if len(text.tokens) <= room else Text(text.tokens[-room:]))
            kept[-1].read = kept[-1].last = 0
            room -= len(text.tokens)
        self.texts, self.automaton = kept[::-1], Automaton()

    def arrays(self) -> dict[str, Array]:
        tokens = list(chain.from_iterable([*text.tokens, NO_TOKEN] for text in self.texts))
        return {"tokens": np.array(tokens, np.uint32)}

    def merge(self, theirs: Arrays, since: Arrays) -> None:
        # A text that was cut to fit is the end of one that was there before.
        known = _texts(since)
        gained = [text for text in _texts(theirs) if not any(old[-len(text) :] == text for old in known)]
        if gained:
            self.replace([*map(Text, gained), *self.texts], self.limit)


def _texts(arrays: Arrays) -> list[list[int]]:
    parts = groupby(arrays["tokens"].tolist() if arrays else [], lambda token: token == NO_TOKEN)
    return [list(tokens) for ends, tokens in parts if not ends]
