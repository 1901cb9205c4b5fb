"""The answer is one of a few texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import llguidance

from decodery.constrain.lib.matcher import MatcherConstraint


@dataclass
class Choice(MatcherConstraint):
    """The whole answer is exactly one of ``options``, over any tokenisation."""

    specimens = ({"options": ("ab", "abc", "ca")},)
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.options or not all(self.options):
            raise ValueError("choice needs options, none of them empty, e.g. choice:options=[yes,no]")

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_regex("|".join(re.escape(option) for option in self.options)))
