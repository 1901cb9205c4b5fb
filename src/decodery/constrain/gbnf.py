"""The answer is a word of a grammar in llama.cpp's notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import llguidance
from annotated_types import MinLen

from decodery.constrain.lib.files import told
from decodery.constrain.lib.gbnf import to_lark
from decodery.constrain.lib.matcher import MatcherConstraint
from decodery.constrain.lib.xgrammar import matcher_of
from decodery.core.part import Model


@dataclass
class Gbnf(MatcherConstraint):
    """The whole answer is a word of a grammar in GBNF, as llama.cpp reads it: character by character, from ``root``.

    ``text``: the grammar, or a file that holds it. ``engine``: what follows it; xgrammar has to be installed.
    """

    example = 'gbnf:root ::= "yes" | "no"'
    specimens = ({"text": 'root ::= "a" root "b" | [ac]* "c"\n'}, {"text": "root ::= (([a-b] | [^ab]){1,2} [a])*\n"})
    text: Annotated[str, MinLen(1)]
    engine: Literal["llguidance", "xgrammar"] = "llguidance"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._text = told(self.text, ("root ", "root:"))
        self._lark = to_lark(self._text)
        if self.engine == "llguidance":
            self.examine()

    def matcher(self, model: Model) -> Any:
        if self.engine == "llguidance":
            return super().matcher(model)
        return matcher_of(model, lambda compiler: compiler.compile_grammar(self._text))

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_lark(self._lark))
