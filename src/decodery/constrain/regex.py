"""The answer matches a regular expression."""

from __future__ import annotations

from dataclasses import dataclass

import llguidance

from decodery.constrain.lib.matcher import MatcherConstraint


@dataclass
class Regex(MatcherConstraint):
    """The whole answer matches ``pattern``, over any tokenisation.

    ``pattern``: the syntax of Rust's regex crate; look-around and back-references are not regular and are refused.
    """

    specimens = ({"pattern": "(a|bc|ca)*"},)
    pattern: str = ""

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("regex needs a pattern, e.g. regex:pattern=[0-9]+")

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_regex(self.pattern))
