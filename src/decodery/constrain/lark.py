"""The answer is a word of a grammar in Lark's notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import llguidance
from annotated_types import MinLen

from decodery.constrain.lib.files import told
from decodery.constrain.lib.matcher import MatcherConstraint


@dataclass
class Lark(MatcherConstraint):
    """The whole answer is a word of a context-free grammar in llguidance's dialect of Lark.

    ``text``: the grammar with its rule ``start``, or a file that holds it. Terminals (names in capitals) match greedily, as
    a lexer does.
    """

    example = 'lark:start: "yes" | "no"'
    specimens = ({"text": 'start: "a" start "b" | "c"\n'},)
    text: Annotated[str, MinLen(1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._text = told(self.text, ("start:", "%llguidance"))
        self.examine()

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_lark(self._text))
