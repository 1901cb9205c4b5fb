"""REST: what followed the last tokens in a corpus on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from decodery.errors import PartsClash
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
        self._store = self._store or Store.open(str(self.path))
        if self._store.fingerprint != model.fingerprint():
            raise PartsClash(
                f"the datastore {self._store.name} was made with another tokenizer than this model's: "
                "build it again with decodery index --model and this model"
            )
        return self

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        assert self._store is not None  # opened by bind
        if min(budget) < 1:
            return TokenTree()
        matched, places = self._store.find(session.tokens[-self.max :], self.min)
        sample = places[:: -(-len(places) // self.hits) or 1]
        following = self._store.following(sample, matched, min(self.length, budget.depth))
        return heaviest(following, min(self.nodes, budget.nodes), matched)


def heaviest(paths: Iterable[Sequence[int]], nodes: int, kind: int = 0) -> TokenTree:
    """The ``nodes`` beginnings that most paths share, all of one kind."""
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
    tree, at = TokenTree(), {ROOT: ROOT}
    known = list(places)
    for node in sorted(range(len(known)), key=lambda node: -weight[node])[:nodes]:
        parent, token = known[node]
        at[node] = tree.add(token, at[parent], kind=kind)
    return tree
