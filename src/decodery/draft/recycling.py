"""Token Recycling: the runners-up of earlier passes are the next guesses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import numpy as np
from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.lore import Arrays, Entries, filled
from decodery.core.part import Model
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import NO_TOKEN, Array, Budget
from decodery.draft.lib.template import template_of
from decodery.model.session import Session


@dataclass
class Successors(Entries[int, list[int]]):
    """For each token the ``k`` tokens last ranked highest after it."""

    k: int

    def rank(self, tokens: Iterable[int], ranked: Iterable[list[int]]) -> None:
        """Learn what was ranked highest after each token, of those that occur twice the last."""
        with self.lock:
            self.known.update(zip(tokens, ranked, strict=True))

    def follow(self, tokens: Sequence[int]) -> None:
        """Learn that each token was followed by the next one."""
        with self.lock:
            for token, after in pairwise(tokens):
                self.known[token] = [after, *(t for t in self.known.get(token, ()) if t != after)][: self.k]

    def arrays(self) -> dict[str, Array]:
        return {"tokens": np.array([*self.known], np.uint32), "after": filled(self.known.values(), self.k)}

    def read(self, arrays: Arrays) -> dict[int, list[int]]:
        rows = zip(arrays["tokens"].tolist(), arrays["after"].tolist(), strict=True)
        return {token: [after for after in row if after != NO_TOKEN][: self.k] for token, row in rows}


@dataclass
class Recycling(Drafter):
    """Keeps for each token the ``k`` tokens last ranked highest after it, and unrolls them into a tree of fixed shape.

    ``template``: "small" (15 nodes), "published" (80 nodes), "3x4" (all paths of 3 ranks, 4 levels deep), or a file that
    ``decodery fit-tree`` fitted to your prompts, ``FILE.json``. ``prompt``: also learn that each prompt token was followed
    by the next one, which costs nothing. The table (k ids for each token seen, so at most ``V * k`` of them) outlives a
    request, on this object only; saved it takes ``4 (k + 1)`` bytes a token (1.8 MB at V = 49152).
    """

    paper = "Turning Trash into Treasure: Accelerating Inference of LLMs with Token Recycling (Luo et al. 2024)"
    template: str = "small"
    k: Annotated[int, Ge(1)] = 8
    prompt: bool = True
    lore: Successors = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._paths = template_of(self.template, self.k)

    def new_lore(self, model: Model) -> Successors:
        return Successors(self.k)

    def begin(self, session: Session, laws: Laws) -> None:
        if self.prompt:
            self.lore.follow(session.tokens)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree = TokenTree()
        at: dict[tuple[int, ...], tuple[int, int]] = {(): (ROOT, session.tokens[-1])}
        for path in self._paths:
            if path[:-1] not in at or len(path) > budget.depth or len(tree) >= budget.nodes:
                continue
            parent, token = at[path[:-1]]
            after = self.lore.known.get(token, ())
            if path[-1] < len(after):
                at[path] = tree.add(after[path[-1]], parent, kind=path[-1]), after[path[-1]]
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        ranked = step.rows.logits.topk(min(self.k, step.rows.logits.shape[-1])).indices.tolist()
        # A token that occurs twice in a tree keeps its last row: later nodes lie deeper and know more of the context.
        self.lore.rank((step.rows.words(0)[-1], *(step.tree.tokens[i] for i in step.tree.live())), ranked)
