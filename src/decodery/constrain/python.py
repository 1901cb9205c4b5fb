"""The answer is Python: so far a beginning of it, in the end a whole program."""

from __future__ import annotations

import ast
import keyword
import re
import warnings
from dataclasses import dataclass

from decodery.constrain.lib.black_box import BlackBox

FLAGS = ast.PyCF_ONLY_AST | 0x4000
"""Parse only, and say "incomplete input" where the parser read all tokens and wants more: what ``codeop`` uses."""
OPERATORS = (
    *("+", "-", "*", "/", "//", "%", "@", "**", "&", "|", "^", "~", "<<", ">>", "<", ">", "<=", ">=", "==", "!="),
    *("=", ":=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "**=", "&=", "|=", "^=", "<<=", ">>="),
    *("->", ".", "...", ":", ",", ";", "(", ")", "[", "]", "{", "}"),
)
STRING = re.compile(r"""(?i:[rbuf]|[rb]{2}|[rf]{2})?(\"{3}|'{3}|["'])""")
TOKEN = re.compile(
    r"(?P<comment>#[^\n]*)|(?P<space>[ \t\f]+|\\\n|\n)|(?P<number>\.?\d(?:[\w.]|(?<=[eE])[+-])*)|(?P<word>[^\W\d]\w*)"
    rf"|(?P<operator>{'|'.join(map(re.escape, sorted([*OPERATORS, '!'], key=len, reverse=True)))})"
)


@dataclass
class Python(BlackBox):
    """The answer is valid Python, as the running interpreter reads it: an answer may end where ``ast.parse`` takes it.

    A text is refused exactly if its tokens begin no program: CPython's own parser decides that ("incomplete input" against
    an error before the end), and the last token, which may grow, is tried in all ways. Half a number or string is not looked
    into, and of an f-string only the closed one. ``before``: code before the answer, for instance the prompt's.
    Use ``search=smc``, which asks about few tokens.
    """

    before: str = ""

    def opening(self) -> bytes:
        return self.before.encode()

    def judge(self, text: bytes) -> bool | None:
        try:
            code = text.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return None
            return False if begins(text[: error.start].decode() + "_") else None  # half a letter, or half a string's
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _parses(code) is True:
                return True
            return False if begins(code) else None


def begins(code: str) -> bool:
    """Whether some Python program begins with this text."""
    kind, start = last_token(code)
    head, tail = code[:start], code[start:]
    if kind == "bad":
        return False
    if kind == "string":
        opening = STRING.match(tail)
        return _open(f"{head}b''" if opening and "b" in opening[0].lower() else f"{head}''")
    if kind == "comment" or code.endswith("\n") or not code:
        return _parses(code if code.endswith("\n") else f"{code}\n") is not False
    if kind == "space":
        line = code.rstrip(" \t\f")
        return _parses(line) is not False if not line or line.endswith("\n") else _open(code)
    if kind == "number":
        return _open(f"{head}0")
    if kind == "word":
        endings = [tail, f"{tail}_", *(one for one in keyword.kwlist if one.startswith(tail) and one != tail)]
        endings += ["''", "b''"] if tail.lower() in ("r", "u", "b", "f", "br", "rb", "fr", "rf") else []
        return any(_open(head + one) for one in endings)
    if kind == "backslash":
        return _open(head)
    return any(_open(head + one) for one in OPERATORS if one.startswith(tail))


def last_token(code: str) -> tuple[str, int]:
    """What kind of token the text ends in, and where that begins; "bad" where a text cannot be read as tokens."""
    at, last = 0, ("space", 0)
    while at < len(code):
        if quoted := STRING.match(code, at):
            end = _string_end(code, quoted.end(), quoted[1])
            if end is None:
                return "string", at
            if end < 0:
                return "bad", at
            at, last = end, ("space", end)
        elif found := TOKEN.match(code, at):
            last = found.lastgroup or "", at
            at = found.end()
        elif code[at] == "\\" and at + 1 == len(code):
            return "backslash", at
        else:
            return "bad", at
    return last


def _string_end(code: str, at: int, quote: str) -> int | None:
    """Where a string ends; None: not yet; -1: never, for its line has ended."""
    while at < len(code):
        if code[at] == "\\":
            at += 2
        elif code.startswith(quote, at):
            return at + len(quote)
        elif code[at] == "\n" and len(quote) == 1:
            return -1
        else:
            at += 1
    return None


def _open(code: str) -> bool:
    """Whether something may follow these tokens on their line: a backslash makes the parser ask for the next one."""
    return _parses(f"{code}\\\n") is None


def _parses(code: str) -> bool | None:
    """True: it is a program. None: the parser read all of it and wants more. False: it found an error before the end."""
    try:
        compile(code, "answer", "exec", FLAGS)
    except SyntaxError as error:
        return None if error.msg == "incomplete input" else False
    except (ValueError, RecursionError, MemoryError):  # a zero byte; too deeply nested to be parsed
        return False
    return True
