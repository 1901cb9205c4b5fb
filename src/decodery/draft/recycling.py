"""Token Recycling: the runners-up of earlier passes are the next guesses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from decodery.errors import UnknownPart
from decodery.law import Laws
from decodery.memory import filled
from decodery.model.session import Session
from decodery.tree import ROOT, TokenTree
from decodery.words import NO_TOKEN, Array, Budget, Chooser, Drafter, Step

Template = tuple[tuple[int, ...], ...]
"""Rank paths, parents first: (0, 2) is the third guess after the first guess."""


def _template(*levels: dict[Any, int]) -> Template:
    """Rank paths from how many children each path has, level by level."""
    return tuple((*path, rank) for level in levels for path, children in level.items() for rank in range(children))


TEMPLATES: dict[str, Template] = {
    # For CPUs, where a forward of 16 rows costs a few times one of 4: about the 15 likeliest of the published tree.
    "small": _template(
        {(): 4},
        {(0,): 3, (1,): 1, (2,): 1},
        {(0, 0): 2, (0, 1): 1},
        {(0, 0, 0): 1, (0, 0, 1): 1},
        {(0, 0, 0, 0): 1},
    ),
    # The authors' tree "2.2.2": 80 nodes, 6 levels.
    "published": _template(
        {(): 8},
        {(rank,): children for rank, children in enumerate((8, 4, 3, 2, 1, 1, 1, 1))},
        {(0, 0): 8, (0, 1): 3, (0, 2): 2, **{(0, rank): 1 for rank in range(3, 8)}}
        | {(1, 0): 2, (1, 1): 1, (2, 0): 1, (3, 0): 1, (4, 0): 1, (5, 0): 1},
        {(0, 0, 0): 5, (0, 0, 1): 2, (0, 0, 2): 1, (0, 0, 3): 1, (0, 0, 4): 1, (0, 1, 0): 1, (0, 2, 0): 1}
        | {(1, 0, 0): 1, (2, 0, 0): 1, (3, 0, 0): 1},
        {(0, 0, 0, 0): 3, (0, 0, 0, 1): 1, (0, 0, 0, 2): 1, (0, 0, 1, 0): 1, (0, 1, 0, 0): 1, (1, 0, 0, 0): 1},
        {(0, 0, 0, 0, 0): 2, (0, 0, 0, 1, 0): 1},
    ),
}


@dataclass
class Recycling(Drafter):
    """Keeps for each token the ``k`` tokens last ranked highest after it, and unrolls them into a tree of fixed shape.

    ``template``: "small" (15 nodes) or "published" (80 nodes). ``prompt``: also learn that each prompt token was followed by
    the next one, which costs nothing. The table (k ids for each token seen, so at most ``V * k`` of them) outlives a
    request, on this object only; saved it takes ``4 (k + 1)`` bytes a token (1.8 MB at V = 49152).
    """

    paper = "Turning Trash into Treasure: Accelerating Inference of LLMs with Token Recycling (Luo et al. 2024)"
    template: str = "small"
    k: int = 8
    prompt: bool = True

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise UnknownPart(f"recycling has no template {self.template!r}; there are: {', '.join(TEMPLATES)}")
        self._after: dict[int, list[int]] = {}

    def begin(self, session: Session, laws: Laws) -> None:
        if self.prompt:
            for token, after in zip(session.tokens, session.tokens[1:], strict=False):
                known = self._after.get(token, [])
                self._after[token] = [after, *(t for t in known if t != after)][: self.k]

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree = TokenTree()
        at: dict[tuple[int, ...], tuple[int, int]] = {(): (ROOT, session.tokens[-1])}
        for path in TEMPLATES[self.template]:
            if path[:-1] not in at or len(path) > budget.depth or len(tree) >= budget.nodes:
                continue
            parent, token = at[path[:-1]]
            after = self._after.get(token, ())
            if path[-1] < len(after):
                at[path] = tree.add(after[path[-1]], parent), after[path[-1]]
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        ranked = step.rows.logits.topk(min(self.k, step.rows.logits.shape[-1])).indices.tolist()
        self._learn((step.rows.words(0)[-1], *(step.tree.tokens[i] for i in step.tree.live())), ranked)

    def memory(self) -> dict[str, Array]:
        return {"tokens": np.array([*self._after], np.uint32), "after": filled(self._after.values(), self.k)}

    def remember(self, memory: Mapping[str, Array]) -> None:
        rows = zip(memory["tokens"].tolist(), memory["after"].tolist(), strict=True)
        known = {token: [t for t in row if t != NO_TOKEN][: self.k] for token, row in rows}
        self._after.clear()
        self._after.update(known)

    def _learn(self, tokens: Iterable[int], ranked: list[list[int]]) -> None:
        # A token that occurs twice in a tree keeps its last row: later nodes lie deeper and know more of the context.
        self._after.update(zip(tokens, ranked, strict=True))
