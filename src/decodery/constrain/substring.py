"""The answer is a part of a text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import llguidance
from annotated_types import MinLen

from decodery.constrain.lib.matcher import MatcherConstraint


@dataclass
class Substring(MatcherConstraint):
    """The whole answer stands in ``text``, character by character; it has at least one.

    ``by``: where it may begin and end: at any character, or at whole words.
    """

    example = "substring:the sky is blue"
    specimens = ({"text": "abcab"}, {"text": "ab cab", "by": "words"})
    text: Annotated[str, MinLen(1)]
    by: Literal["chars", "words"] = "chars"

    def grammar(self) -> str:
        part = json.dumps({f"substring_{self.by}": self.text})
        lark = f"start: PART\nPART: ANY & /(?s:.+)/\nANY: %regex {part}\n"
        return str(llguidance.LLMatcher.grammar_from_lark(lark))
