"""Prompt lookup: what followed the last words before, follows again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, common
from decodery.model.session import Session


@dataclass
class NGram(Drafter):
    """Copies what followed earlier occurrences of the last tokens, in the prompt or the answer; longest match first.

    ``max``, ``min``: lengths of the suffix looked up. ``length``: tokens copied from an occurrence. ``width``: how many
    different occurrences become branches of one tree, the latest first.
    """

    paper = "Prompt Lookup Decoding (Saxena 2023); Inference with Reference (Yang et al. 2023)"
    specimens = ({"min": 1, "length": 2}, {"min": 1, "length": 2, "width": 2})
    max: int = 4
    min: Annotated[int, Ge(1)] = 1
    length: Annotated[int, Ge(1)] = 10
    width: Annotated[int, Ge(1)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min > self.max:
            raise ValueError(f"ngram needs 1 <= min <= max, not min={self.min}, max={self.max}")

    def begin(self, session: Session, laws: Laws) -> None:
        self._ends: dict[tuple[int, ...], list[int]] = {}
        self._read: list[int] = []

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tokens = session.tokens
        self._index(tokens)
        paths: list[list[int]] = []
        matched: list[int] = []
        for n in range(min(self.max, len(tokens) - 1), self.min - 1, -1):
            for end in reversed(self._ends.get(tuple(tokens[-n:]), [])):
                path = tokens[end : end + min(self.length, budget.depth)]
                if path and path not in paths:
                    paths.append(path)
                    matched.append(n)
                if len(paths) == self.width:
                    return TokenTree.trie(paths, budget.nodes, matched)
        return TokenTree.trie(paths, budget.nodes, matched)

    def _index(self, tokens: list[int]) -> None:
        """Book where each n-gram ended; those that end with the text have no continuation yet and wait."""
        # The text may have been taken back and written anew, perhaps by a draft only: forget from where it parts.
        known = common(self._read, tokens)
        for end in range(len(self._read) - 1, max(known, 1) - 1, -1):
            for n in range(self.min, min(self.max, end) + 1):
                self._ends[tuple(self._read[end - n : end])].pop()
        del self._read[known:]
        for end in range(max(known, 1), len(tokens)):
            for n in range(self.min, min(self.max, end) + 1):
                self._ends.setdefault(tuple(tokens[end - n : end]), []).append(end)
        self._read += tokens[known:]
