"""REST: what followed the last tokens in a corpus on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from decodery.model.session import Session
from decodery.store import REACH, Store
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Chooser, Drafter, Model


@dataclass
class Datastore(Drafter):
    """Finds the longest end of the text in a datastore and drafts its most frequent continuations as a tree.

    ``path``: a directory made by ``decodery index``, or an open ``Store``. ``max``, ``min``: lengths of the end looked up.
    Of up to ``hits`` occurrences, evenly taken, the next ``length`` tokens are counted; the ``nodes`` heaviest are drafted.
    The store stays on disk (8 bytes a token) and is only read.
    """

    paper = "REST: Retrieval-Based Speculative Decoding (He et al. 2023)"
    specimens = ({"path": Store.of([[0, 1, 2, 0, 1, 0, 2, 1], [1, 0, 0, 1]], "toy 3"), "min": 1, "nodes": 3},)
    path: object = ""
    max: int = 16
    min: int = 2
    length: int = 10
    nodes: int = 16
    hits: int = 64

    def __post_init__(self) -> None:
        if not self.path or not isinstance(self.path, (str, Path, Store)):
            raise ValueError("datastore needs path=STORE, a directory made by: decodery index FILES -o STORE")
        if not 1 <= self.min <= self.max <= REACH:
            raise ValueError(f"datastore needs 1 <= min <= max <= {REACH}, not min={self.min}, max={self.max}")
        if min(self.length, self.nodes, self.hits) < 1:
            raise ValueError(f"datastore needs length, nodes and hits >= 1, not {self}")
        self._store = self.path if isinstance(self.path, Store) else None

    def bind(self, model: Model) -> Self:
        self._store = Store.fit(self._store or self.path, model)  # opened once: that reads all of it
        return self

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        assert self._store is not None  # opened by bind
        if min(budget) < 1:
            return TokenTree()
        matched, places = self._store.find(session.tokens[-self.max :], self.min)
        sample = places[:: -(-len(places) // self.hits) or 1]
        following = self._store.following(sample, matched, min(self.length, budget.depth))
        return heaviest(following, min(self.nodes, budget.nodes), matched)[0]


def heaviest(paths: Sequence[Sequence[int]], nodes: int, kind: int = 0) -> tuple[TokenTree, float]:
    """The ``nodes`` beginnings that most paths share, all of one kind, and how many of them a path has on average."""
    places: dict[tuple[int, int], int] = {}
    weight: list[int] = []
    for path in paths:
        parent = ROOT
        for token in path:
            node = places.setdefault((parent, token), len(weight))
            if node == len(weight):
                weight.append(0)
            weight[node] += 1
            parent = node
    # A parent weighs no less than its children and came first, so the order is parents first.
    tree, at, shared = TokenTree(), {ROOT: ROOT}, 0
    known = list(places)
    for node in sorted(range(len(known)), key=lambda node: -weight[node])[:nodes]:
        parent, token = known[node]
        at[node] = tree.add(token, at[parent], kind=kind)
        shared += weight[node]
    return tree, shared / max(1, len(paths))
