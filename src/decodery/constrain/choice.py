"""The answer is one of a few texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import llguidance
from annotated_types import MinLen

from decodery.constrain.lib.matcher import MatcherConstraint


@dataclass
class Choice(MatcherConstraint):
    """The whole answer is exactly one of ``options``, over any tokenisation."""

    example = "choice:[yes,no]"
    specimens = ({"options": ("ab", "abc", "ca")},)
    options: Annotated[tuple[Annotated[str, MinLen(1)], ...], MinLen(1)]

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_regex("|".join(re.escape(option) for option in self.options)))
