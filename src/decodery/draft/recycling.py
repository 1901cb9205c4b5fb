"""Token Recycling: the runners-up of earlier passes are the next guesses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import NO_TOKEN, Array, Budget
from decodery.draft.lib.memory import filled
from decodery.draft.lib.template import template_of
from decodery.model.session import Session


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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._paths = template_of(self.template, self.k)
        self._after: dict[int, list[int]] = {}

    def begin(self, session: Session, laws: Laws) -> None:
        if self.prompt:
            for token, after in zip(session.tokens, session.tokens[1:], strict=False):
                known = self._after.get(token, [])
                self._after[token] = [after, *(t for t in known if t != after)][: self.k]

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree = TokenTree()
        at: dict[tuple[int, ...], tuple[int, int]] = {(): (ROOT, session.tokens[-1])}
        for path in self._paths:
            if path[:-1] not in at or len(path) > budget.depth or len(tree) >= budget.nodes:
                continue
            parent, token = at[path[:-1]]
            after = self._after.get(token, ())
            if path[-1] < len(after):
                at[path] = tree.add(after[path[-1]], parent, kind=path[-1]), after[path[-1]]
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
