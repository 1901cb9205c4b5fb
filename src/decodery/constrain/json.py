"""The answer is JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from decodery.constrain.lib.matcher import MatcherConstraint
from decodery.constrain.lib.schemas import Whitespace, grammar_of, value_of


@dataclass
class Json(MatcherConstraint):
    """The answer is one JSON value, or one object.

    ``kind``: any value, or an object. ``whitespace``: between its parts one space as Python writes it ("spaced"), none
    ("compact"), that or line breaks with at most 24 spaces ("lines"), or whatever the standard allows ("any").
    """

    specimens = ({},)
    letters = "12-"
    kind: Literal["any", "object"] = "any"
    whitespace: Whitespace = "spaced"

    def grammar(self) -> str:
        return grammar_of({} if self.kind == "any" else {"type": "object"}, self.whitespace)

    def value(self, text: str, whole: bool = True) -> Any:
        return value_of(text, whole)
