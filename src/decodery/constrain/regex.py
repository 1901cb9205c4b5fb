"""The answer matches a regular expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import llguidance
from annotated_types import MinLen

from decodery.constrain.lib.matcher import MatcherConstraint


@dataclass
class Regex(MatcherConstraint):
    """The whole answer matches ``pattern``, over any tokenisation.

    ``pattern``: the syntax of Rust's regex crate; look-around and back-references are not regular and are refused.
    """

    example = "regex:[0-9]+"
    specimens = ({"pattern": "(a|bc|ca)*"},)
    pattern: Annotated[str, MinLen(1)]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.examine()

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_regex(self.pattern))
