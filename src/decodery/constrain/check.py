"""The answer passes a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from decodery.constrain.lib.black_box import BlackBox
from decodery.core.errors import DecoderyError
from decodery.core.part import Model
from decodery.run.outside import function_at


def _even(text: bytes, ended: bool) -> bool:
    """No two equal letters in a row, an even number of them in all; for the law suite."""
    return all(a != b for a, b in pairwise(text)) and not (ended and len(text) % 2)


@dataclass
class Check(BlackBox):
    """Asks a Python function whether an answer may begin with this text, and whether it may be the whole answer.

    ``function``: a callable, or ``python:module:function``, which is imported (so specs with it may only come from whoever
    may run code here). It gets the text of the answer so far and, if it takes a second argument, whether the answer is to end
    there; it answers True or False. It must be pure, and prefix-closed: what is refused may have no allowed continuation.
    ``text``: it gets a ``str`` (half a character at the end is left out, and what is no UTF-8 is refused); otherwise ``bytes``.
    ``before``: a text that is read before the answer. Use ``search=smc``, which asks about few tokens.
    Raises ``DecoderyError`` where the function cannot be imported, or raises itself.
    """

    example = "check:python:my_module:may_begin_with"
    specimens = ({"function": _even},)
    function: Callable[..., Any] | str
    text: bool = False
    before: str = ""

    def bind(self, model: Model) -> Self:
        self._function = function_at(self.function) if isinstance(self.function, str) else self.function
        self._asks_twice = _takes_two(self._function)
        self._name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return super().bind(model)

    def opening(self) -> bytes:
        return self.before.encode()

    def judge(self, text: bytes) -> bool | None:
        given: bytes | str = text
        if self.text:
            try:
                given = text.decode()
            except UnicodeDecodeError as error:
                if error.reason != "unexpected end of data":
                    return None
                return False if self._ask(text[: error.start].decode(), False) else None
        if not self._ask(given, False):
            return None
        return self._ask(given, True) if self._asks_twice else True

    def _ask(self, text: bytes | str, ended: bool) -> bool:
        try:
            return bool(self._function(text, ended) if self._asks_twice else self._function(text))
        except Exception as error:
            raise DecoderyError(
                f"the check {self._name} raised {type(error).__name__} on {text[-60:]!r}: {error}; "
                "it must answer True or False for every text"
            ) from error


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether it can be called with two arguments."""
    try:
        inspect.signature(function).bind(b"", False)
    except (TypeError, ValueError):
        return False
    return True
