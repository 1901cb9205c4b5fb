"""What a verifier decides, and what one turn of a program did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from decodery.core.law import Law
from decodery.core.tree import TokenTree
from decodery.core.values import Candidate, Rows


class Verdict(NamedTuple):
    """Accepted nodes, root to leaf, and the tokens that follow them; both may be empty."""

    path: tuple[int, ...]
    extra: tuple[int, ...] = ()

    def tokens(self, tree: TokenTree) -> list[int]:
        return [tree.tokens[i] for i in self.path] + list(self.extra)


@dataclass
class Step:
    """What one turn of a program did; every figure Decodery prints is folded from these.

    ``tokens`` are the ones committed by this step; ``seconds`` maps a phase to its time; ``candidates`` is filled by the
    last step of a search.
    """

    tree: TokenTree
    rows: Rows
    p: Law
    verdict: Verdict
    tokens: list[int]
    seconds: dict[str, float] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
