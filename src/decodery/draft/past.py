"""The texts of earlier requests, as one automaton."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from decodery.draft.automaton import Automaton


@dataclass
class Text:
    """The tokens of a request: it appends to them, and how many of them are in the automaton already."""

    tokens: list[int] = field(default_factory=list)
    read: int = 0
    last: int = 0


@dataclass
class Past:
    """Reads each request's tokens when the next one begins, so no step waits for it; keeps the newest ``limit`` tokens.

    Beyond that the oldest texts are forgotten, half of the room at once, for the automaton must be built anew.
    """

    limit: int
    texts: list[Text] = field(default_factory=list)
    automaton: Automaton = field(default_factory=Automaton)

    def open(self) -> Text:
        """A new request begins: what the others have by now is known to it, its own tokens to those after it."""
        if sum(len(text.tokens) for text in self.texts) > self.limit:
            self.replace(self.texts)
        for text in self.texts:
            for token in text.tokens[text.read :]:
                text.last = self.automaton.add(token, text.last)
            text.read = len(text.tokens)
        self.texts.append(Text())
        return self.texts[-1]

    def replace(self, texts: Iterable[Text]) -> None:
        """Begin anew with the newest of these texts that fill half the room; requests under way keep what they know."""
        kept: list[Text] = []
        room = self.limit // 2
        for text in reversed(list(texts)):
            room -= len(text.tokens)
            if room < 0:
                break
            text.read = text.last = 0
            kept.append(text)
        self.texts, self.automaton = kept[::-1], Automaton()
