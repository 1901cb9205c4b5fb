"""llama.cpp's grammars (GBNF) read, and as Lark grammars of llguidance that have the same words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from decodery.constrain.lib.grammar import LAST, Alt, Chars, Node, Ref, Rep, Seq, chars
from decodery.constrain.lib.terminals import lark_of

NAME = re.compile(r"[A-Za-z0-9_-]+")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
DIGITS = {"x": 2, "u": 4, "U": 8}
DEEPEST = 100
"""Brackets within brackets."""


def to_lark(text: str) -> str:
    """A GBNF grammar in Lark's notation. Raises ``ValueError`` with the line where it cannot be read."""
    try:
        return lark_of(_Reader(text).rules(), "root")
    except RecursionError as error:
        raise ValueError("GBNF: the rules lead too deeply into one another") from error


@dataclass
class _Reader:
    """Reads a grammar from left to right; the notation is that of llama.cpp's ``grammars/README.md``."""

    text: str
    at: int = 0
    depth: int = 0

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self._space(lines=True)
        while self.at < len(self.text):
            name = self._name()
            self._space()
            if not self.text.startswith("::=", self.at):
                self._fail(f"expected ::= behind {name!r}")
            self.at += 3
            self._space(lines=True)
            node = self._alternatives(nested=False)
            if self.at < len(self.text) and self.text[self.at] not in "\r\n":
                self._fail("expected the end of the rule")
            if name in found:
                self._fail(f"there is a rule {name!r} already")
            found[name] = node
            self._space(lines=True)
        return found

    def _alternatives(self, nested: bool) -> Node:
        several = [self._sequence(nested)]
        while self._bar(nested):
            self._space(lines=True)
            several.append(self._sequence(nested))
        return several[0] if len(several) == 1 else Alt(tuple(several))

    def _bar(self, nested: bool) -> bool:
        """Whether another alternative follows; it may begin the next line."""
        before = self.at
        self._space(lines=True)
        if self.text.startswith("|", self.at):
            self.at += 1
            return True
        if not nested:
            self.at = before
        return False

    def _sequence(self, nested: bool) -> Node:
        items: list[Node] = []
        while (char := self.text[self.at : self.at + 1]) and char not in "|)" and (nested or char not in "\r\n"):
            if char == '"':
                node = self._literal()
            elif char == "[":
                node = self._class()
            elif char == "(":
                node = self._group()
            elif char == ".":
                self.at += 1
                node = Chars(((0, LAST),))
            elif NAME.match(char):
                node = Ref(self._name())
            elif char in "<!":
                self._fail("tokens such as <think> are not supported; write their text in quotes")
            else:
                self._fail(f"{char!r} begins nothing")
            items.append(self._repeated(node))
            self._space(lines=nested)
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def _group(self) -> Node:
        self.at += 1
        self.depth += 1
        if self.depth > DEEPEST:
            self._fail(f"more than {DEEPEST} brackets within each other")
        self._space(lines=True)
        node = self._alternatives(nested=True)
        if not self.text.startswith(")", self.at):
            self._fail("expected )")
        self.at += 1
        self.depth -= 1
        return node

    def _repeated(self, node: Node) -> Node:
        while sign := self.text[self.at : self.at + 1]:
            if sign in "*+?":
                self.at += 1
                node = Rep(node, int(sign == "+"), 1 if sign == "?" else None)
            elif found := re.compile(r"\{\s*(\d{1,5})\s*(?:(,)\s*(\d{1,5})?\s*)?\}").match(self.text, self.at):
                self.at = found.end()
                least = int(found[1])
                most = int(found[3]) if found[3] else None if found[2] else least
                if most is not None and most < least:
                    self._fail(f"{found[0]} allows nothing")
                node = Seq(()) if most == 0 else Rep(node, least, most)
            elif sign == "{":
                self._fail("a repetition is {m}, {m,} or {m,n}")
            else:
                break
        return node

    def _literal(self) -> Node:
        self.at += 1
        items: list[Node] = []
        while not self.text.startswith('"', self.at):
            code = self._char()
            items.append(Chars(((code, code),)))
        self.at += 1
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def _class(self) -> Node:
        self.at += 1
        negated = self.text.startswith("^", self.at)
        self.at += negated
        ranges = []
        while not self.text.startswith("]", self.at):
            low = high = self._char()
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                high = self._char()
                if high < low:
                    self._fail("a range of characters goes upwards")
            ranges.append((low, high))
        self.at += 1
        if not (found := chars(ranges, negated)).ranges:
            self._fail("a bracket before this that allows no character")
        return found

    def _char(self) -> int:
        """The code point of a character, written as it is or escaped."""
        char = self.text[self.at : self.at + 1]
        if not char or char in "\r\n":
            self._fail("a quote or a bracket is not closed in its line")
        self.at += 1
        if char != "\\":
            return ord(char)
        kind = self.text[self.at : self.at + 1]
        self.at += 1
        if kind in DIGITS:
            digits = self.text[self.at : self.at + DIGITS[kind]]
            self.at += len(digits)
            if re.fullmatch(f"[0-9A-Fa-f]{{{DIGITS[kind]}}}", digits) and int(digits, 16) <= LAST:
                return int(digits, 16)
        elif kind in ESCAPES:
            return ord(ESCAPES[kind])
        return self._fail(f"\\{kind} is no escape")

    def _name(self) -> str:
        if (found := NAME.match(self.text, self.at)) is None:
            self._fail("expected the name of a rule")
        self.at = found.end()
        return found[0]

    def _space(self, lines: bool = False) -> None:
        """Go over spaces and comments, and the ends of lines where they mean nothing."""
        found = re.compile(r"(?:\s|#[^\n]*)*" if lines else r"[ \t]*(?:#[^\r\n]*)?").match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _fail(self, said: str) -> NoReturn:
        line = self.text.count("\n", 0, self.at) + 1
        near = self.text[self.at : self.at + 20].partition("\n")[0]
        raise ValueError(f"GBNF, line {line}, at {near!r}: {said}")
