"""Tokens in, text out: streaming that never shows half a character, stop strings across token borders."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import takewhile

from decodery.core.codec import Message, Text

__all__ = ["Message", "Text", "TextStream"]

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer puts in place of a character whose bytes are not all there."""
PATIENCE = 8
"""More tokens than a character has bytes: so many without a whole character are invalid for good."""
LONG = 64
"""Where more tokens than this show nothing, the text is looked at again only when their number has doubled."""


@dataclass
class TextStream:
    """Tokens in, text out, as early as it is certain.

    What has been shown is never taken back: half a character waits for its rest, a run of byte tokens for its end (one
    invalid byte makes question marks of the whole run), and text that may be the beginning of a stop string waits until
    it is not. ``"".join`` of all pieces equals ``text`` and, without a stop string, the tokenizer's decode of all tokens.

    Stop strings are looked for in all that the tokens say, the names of special tokens included, as transformers'
    ``StopStringCriteria`` does.

    The cost of a token does not depend on how many came before: only the last few are decoded again. The state apart from
    ``tokens`` and ``ends`` holds values that never change, so ``dataclasses.replace`` copies a stream.
    """

    codec: Text
    stops: tuple[str, ...] = ()
    literal: bool = False
    """Keep a first space that the tokenizer takes off at the beginning of a text, for what a constraint has spelled."""
    tokens: list[int] = field(default_factory=list)
    """All that came, but not a token that ended the answer."""
    ends: list[int] = field(default_factory=list)
    """For each token, how many characters were certain once it had come."""
    stopped: str | None = None
    """The stop string that was found; the text ends before it."""
    _known: str = ""
    _shown: int = 0
    _start: int = 0
    """The first token that is decoded again with each new one; ``_before`` is what is known of the text from there."""
    _before: str | None = None
    _whole: int = 0
    """Where ``_start`` moves next: the last place known to lie between characters, or far enough behind one."""
    _waiting: int = 0
    """So many tokens with text came since ``_start`` moved."""
    _guess: str = ""
    """The text of a run of byte tokens if nothing invalid follows."""
    _partial: bytes = b""
    _said: str = ""
    """The end of all that the tokens say, hidden tokens included; ``_seen`` tells which characters are shown."""
    _seen: bytes = b""

    def push(self, token: int, shown: bool = True) -> bool:
        """Take one token; True if a stop string is now complete.

        A token that ends the answer is not ``shown``: its text, if it has any, belongs to no answer.
        """
        name = self.codec.hidden(token)
        if shown:
            self.tokens.append(token)
            if name is None:
                self._take(token)
        elif name is None:
            opening = self.codec.opening
            name = self.codec.decode([*opening, token])[len(self.codec.decode(opening)) :]
        self._say(name or "", seen=False)
        self._look()
        self.ends.append(len(self._known))
        return self.stopped is not None

    def piece(self) -> str:
        """The text that is certain and was not shown yet."""
        end = len(self._known) if self.stopped is not None else len(self._known) - self._held()
        piece, self._shown = self._known[self._shown : end], max(self._shown, end)
        return piece

    def finish(self) -> str:
        """The rest of the text, once no token follows."""
        if self.stopped is None:
            self._flush()
        piece, self._shown = self._known[self._shown :], len(self._known)
        return piece

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return self._known[: self._shown]

    def fork(self) -> TextStream:
        """The text of another answer that goes on from here."""
        return replace(self, tokens=list(self.tokens), ends=list(self.ends))

    def _take(self, token: int) -> None:
        """Add what is certain now that a token with text has come."""
        if (value := self.codec.bytes.get(token)) is not None:
            self._suppose(value)
            return
        self._waiting += 1
        if self._waiting > LONG and self._waiting & (self._waiting - 1):
            return
        before, now = self._again()
        certain = now.removesuffix(HALF)
        fresh = certain[len(before) :] if now.startswith(before) else ""
        if fresh:
            self._add(fresh)
            self._before = certain
        if fresh and now == certain:
            self._settle(self._whole)
            self._whole = len(self.tokens)
        elif self._waiting >= PATIENCE and now.endswith(HALF):
            self._whole = self._last(PATIENCE // 2)
            self._settle(self._whole)

    def _again(self) -> tuple[str, str]:
        """What is known of the text of the last few tokens, and that text."""
        context = self.codec.opening
        if self._before is None:
            self._before = self.codec.decode(context)
        tokens = [token for token in self.tokens[self._start :] if self.codec.hidden(token) is None]
        return self._before, self.codec.decode([*context, *tokens])

    def _settle(self, start: int) -> None:
        """Decode from the token ``start`` on from now on."""
        self._start, self._waiting = start, 0
        self._before = self._again()[1].removesuffix(HALF)

    def _last(self, count: int) -> int:
        """Where the last ``count`` tokens with text begin."""
        start = len(self.tokens)
        while count:
            start -= 1
            count -= self.codec.hidden(self.tokens[start]) is None
        return start

    def _suppose(self, value: int) -> None:
        """Note what one more byte of a run probably says."""
        self._partial += bytes([value])
        try:
            text, self._partial = self._partial.decode(), b""
        except UnicodeDecodeError as error:
            text, self._partial = "", self._partial if "unexpected end" in error.reason else b""
        self._guess += text
        self._say(text)

    def _flush(self) -> None:
        """Add what is left, half a character included, for no token follows."""
        before, now = self._again()
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
        if fresh := now[same:]:
            self._add(fresh, whole=True)
        self._before = now

    def _add(self, text: str, whole: bool = False) -> None:
        """Add certain text to what is known."""
        shown = text
        if not (self._known or self.literal):  # a text may begin otherwise than it would go on
            alone = self.codec.decode(self.tokens)
            shown = alone if whole else alone.removesuffix(HALF)
            text = text if text.endswith(shown) else shown
        self._known += shown
        rest = text.removeprefix(self._guess)
        self._guess, self._partial = "", b""
        hidden = max(len(rest) - len(shown), 0)
        self._say(rest[:hidden], seen=False)
        self._say(rest[hidden:])

    def _say(self, text: str, seen: bool = True) -> None:
        """Note text for the stop strings."""
        if self.stops:
            self._said += text
            self._seen += bytes([seen]) * len(text)

    def _look(self) -> None:
        """Cut the text before a stop string."""
        if self.stopped is not None:
            return
        found = [(at, stop) for stop in self.stops if (at := self._said.find(stop)) >= 0]
        if found:
            at, self.stopped = min(found)
            if self._guess:
                self._flush()
            self._known = self._known[: max(len(self._known) - sum(self._seen[at:]), self._shown)]
        elif self.stops:
            longest = max(map(len, self.stops))
            self._said, self._seen = self._said[-longest:], self._seen[-longest:]

    def _held(self) -> int:
        """How many certain characters at the end may be the beginning of a stop string."""
        begun = max((n for stop in self.stops for n in range(1, len(stop)) if self._said.endswith(stop[:n])), default=0)
        return max(sum(self._seen[len(self._seen) - begun :]) - len(self._guess), 0)
