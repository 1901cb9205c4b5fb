"""Speculative decoding with a draft model: a smaller model, or the target itself with fewer layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from decodery.errors import PartsClash
from decodery.law import Law, Laws
from decodery.model.session import Session
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Cap, Chooser, Drafter, Model, Scheme, Step


@dataclass
class ModelDraft(Drafter):
    """Draws a tree from a draft model, level by level, under the same guides as the target.

    ``path``: what ``decodery.load`` takes, or a loaded model; it must have the target's vocabulary. Empty: the target
    itself through ``layers`` of its layers (default: all but the middle third). ``length``: levels. ``width``: children of
    each node on the first level, one below. Under a greedy law the children are the likeliest tokens; otherwise they are
    drawn without replacement.
    """

    paper = "Fast Inference from Transformers via Speculative Decoding (Leviathan et al. 2023); Draft & Verify (Zhang et al.)"
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"length": 2}, {"path": "toy", "width": 2, "length": 1})
    path: object = ""
    length: int = 3
    width: int = 1
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.length < 1 or self.width < 1:
            raise ValueError(f"model needs length >= 1 and width >= 1, not length={self.length}, width={self.width}")
        self._model: Model | None = None

    def bind(self, model: Model) -> Self:
        if not self.path and Cap.LAYERS not in model.can:
            raise PartsClash(
                "draft part 'model' runs the target through fewer layers, which this model does not offer: give path="
            )
        if self.path and self._model is None:
            self._model = model.companion(self.path)
        self._layers = self.layers or model.default_layers()
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        self._laws = laws.alone()
        if self._model is not None:
            self._session = self._model.session()
        else:
            self._session = session.view(layers=self._layers)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree = TokenTree(scheme=Scheme.CERTAIN if self._laws.greedy else Scheme.DISTINCT)
        if min(budget) < 1:
            return tree
        self._session.follow(session)
        rows = self._session.forward()
        level = self._add(tree, [ROOT], self._laws(rows), [0], self.width, budget, rng)
        for _ in range(1, min(self.length, budget.depth)):
            if not level:
                break
            rows = self._session.grow(tree)
            level = self._add(tree, level, self._laws(rows), [rows.index[node] for node in level], 1, budget, rng)
        return tree

    def _add(
        self,
        tree: TokenTree,
        parents: list[int],
        law: Law,
        rows: list[int | None],
        width: int,
        budget: Budget,
        rng: Chooser,
    ) -> list[int]:
        """Children for each parent; returns them."""
        fresh = []
        for parent, row in zip(parents, rows, strict=True):
            if row is None:
                continue
            if self._laws.greedy:
                fresh += [
                    tree.add(token, parent)
                    for token in law.logits[row].topk(min(width, law.logits.shape[-1])).indices.tolist()
                    if len(tree) < budget.nodes
                ]
                continue
            q = law.row(row)
            for _ in range(width):
                if q is None or not float(q.sum()) > 0 or len(tree) >= budget.nodes:
                    break
                q = q / q.sum()
                fresh.append(tree.add(token := rng.pick(q), parent, q))
                q = q.index_fill(0, q.new_tensor(token).long(), 0.0)
        return fresh

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        self._session.follow(session)
