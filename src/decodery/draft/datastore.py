"""REST: what followed the last tokens in a corpus on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge, Le

from decodery.core.chooser import Chooser
from decodery.core.part import Model
from decodery.core.roles import Drafter
from decodery.core.tree import TokenTree
from decodery.core.values import Budget
from decodery.draft.lib.store import REACH, Store, heaviest
from decodery.model.session import Session


@dataclass
class Datastore(Drafter):
    """Finds the longest end of the text in a datastore and drafts its most frequent continuations as a tree.

    ``path``: a directory made by ``decodery index``, or an open ``Store``. ``max``, ``min``: lengths of the end looked up.
    Of up to ``hits`` occurrences, evenly taken, the next ``length`` tokens are counted; the ``nodes`` heaviest are drafted.
    The store stays on disk (8 bytes a token) and is only read.
    """

    paper = "REST: Retrieval-Based Speculative Decoding (He et al. 2023)"
    example = "datastore:STORE"
    specimens = ({"path": Store.of([[0, 1, 2, 0, 1, 0, 2, 1], [1, 0, 0, 1]], "toy 3"), "min": 1, "nodes": 3},)
    path: str | Path | Store = ""
    max: Annotated[int, Le(REACH)] = 16
    min: Annotated[int, Ge(1)] = 2
    length: Annotated[int, Ge(1)] = 10
    nodes: Annotated[int, Ge(1)] = 16
    hits: Annotated[int, Ge(1)] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ValueError("datastore needs path=STORE, a directory made by: decodery index FILES -o STORE")
        if self.min > self.max:
            raise ValueError(f"datastore needs 1 <= min <= max <= {REACH}, not min={self.min}, max={self.max}")
        self._opened: list[Store] = []
        """The store, once it is open: for all requests."""

    def bind(self, model: Model) -> Self:
        self._store = Store.fit(self.path, model, self._opened)
        return self

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        if min(budget) < 1:
            return TokenTree()
        matched, places = self._store.find(session.tokens[-self.max :], self.min)
        sample = places[:: -(-len(places) // self.hits) or 1]
        following = self._store.following(sample, matched, min(self.length, budget.depth))
        return heaviest(following, min(self.nodes, budget.nodes), matched)[0]
