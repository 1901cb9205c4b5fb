"""What a verifier decides, and what one turn of a program did."""

from __future__ import annotations

from collections import Counter
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

    def cut(self, count: int) -> Verdict:
        """The verdict of the first ``count`` tokens."""
        path = self.path[:count]
        return Verdict(path, self.extra[: count - len(path)])


@dataclass
class Step:
    """What one turn of a program did; every figure Decodery prints is folded from these.

    Attributes:
        tokens: the tokens that this step adds to the answer.
        seconds: phase -> its time.
        calls: passes by what ran ("target", "draft", "companion", and "trial" for answers that a search tries), and
            "positions", the tokens that the target computed.
        candidates: the finished answers of a search, in its last step.
        log_evidence: what the search estimates of the log-probability that an answer of the model keeps the constraint
            (nats), in its last step; None where it estimates none.
    """

    tree: TokenTree
    rows: Rows
    p: Law
    verdict: Verdict
    tokens: list[int]
    seconds: dict[str, float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    candidates: list[Candidate] = field(default_factory=list)
    log_evidence: float | None = None
