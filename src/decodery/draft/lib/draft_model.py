"""What all drafters share that ask a draft model, or their target through fewer layers: the law after a node, one draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.errors import PartsClash
from decodery.core.law import Law
from decodery.core.part import Asking, Model
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Cap, Scheme, Tensor
from decodery.model.session import Ask, Session
from decodery.model.variant import Variant, through
from decodery.model.view import View
from decodery.run.registry import name_of


@dataclass
class Drawn(Drafter):
    """A tree drawn from the law that a session of the drafter's own gives; a policy says where it grows.

    Where the law is greedy, the likeliest token takes the place of a draw, and the tree is certain.
    """

    def open(self, session: Session) -> Session:
        """The session to draw from."""
        raise NotImplementedError

    def begin(self, session: Session, laws: Laws) -> None:
        self._laws = laws.alone()
        self._session = self.open(session)

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        self.catch_up(session)

    def end(self, session: Session) -> None:
        self._session.close()

    def catch_up(self, session: Session) -> None:
        """Bring the own session to what is committed; it is the same text, unless the drafter reads another one."""
        self._session.follow(session)

    def empty(self, scheme: Scheme, settled: bool = False) -> TokenTree:
        """A tree to grow."""
        return TokenTree(scheme=Scheme.CERTAIN if self._laws.greedy else scheme, settled=settled)

    def after(self, session: Session, tree: TokenTree, nodes: Sequence[int]) -> Asking[list[Tensor | None]]:
        """The draft law ``[V]`` after each node, in one pass; of nodes that no pass has seen yet, or the root alone."""
        root = list(nodes) == [ROOT]
        if root:
            self.catch_up(session)
        fresh = None if root else [node for node in nodes if not tree.ghost[node]]
        if fresh == []:
            return [None for _ in nodes]
        (rows,) = yield [Ask(self._session, TokenTree() if root else tree, fresh=fresh)]
        law = Law(self._laws(rows).logits, greedy=False)
        return [None if (row := rows.at(node)) is None else law.row(row) for node in nodes]

    def draw(self, tree: TokenTree, node: int, q: Tensor, rng: Chooser) -> tuple[int, float, Tensor | None]:
        """Add a child drawn from ``q``; returns it, its chance, and the law of a next sibling drawn without replacement."""
        greedy = self._laws.greedy
        token = int(q.argmax()) if greedy else rng.pick(q)
        child = tree.add(token, node, None if greedy else q)
        rest = q.index_fill(0, q.new_tensor(token).long(), 0.0)
        mass = float(rest.sum())
        return child, float(q[token]), rest / mass if mass > 0 else None

    def levels(
        self, session: Session, budget: Budget, rng: Chooser, widths: Sequence[int], settled: bool
    ) -> Asking[TokenTree]:
        """As many distinct children for each node of a level as its width says."""
        tree, level = self.empty(Scheme.DISTINCT, settled), [ROOT]
        for width in widths[: budget.depth]:
            if not level or len(tree) >= budget.nodes:
                break
            fresh = []
            for node, law in zip(level, (yield from self.after(session, tree, level)), strict=True):
                for _ in range(width):
                    if law is None or len(tree) >= budget.nodes:
                        break
                    child, _, law = self.draw(tree, node, law, rng)
                    fresh.append(child)
            level = fresh
        return tree


@dataclass
class Grown(Drawn):
    """A tree drawn from a draft model: another one, or the target through ``layers``."""

    path: object = ""
    layers: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.path and self.layers:
            raise ValueError("give path= (another model drafts) or layers= (the target through these), not both")

    def bind(self, model: Model) -> Self:
        super().bind(model)
        if not self.path and Cap.LAYERS not in model.can:
            name = name_of(self)[1]
            raise PartsClash(
                f"draft part {name!r} runs the target through fewer layers, which this model does not offer: give "
                "path=, or load it with backend=torch"
            )
        self._model = model.companion(self.path) if self.path else None
        layers = self.layers or model.default_layers()
        if not self.path and (unknown := [layer for layer in layers if not 0 <= layer < model.depth]):
            raise ValueError(f"layers: this model's are 0 to {model.depth - 1}, not {unknown}")
        self._variant = through(layers)
        return self

    def open(self, session: Session) -> Session:
        return View(session, self._variant) if self._model is None else session.beside(self._model)


@dataclass
class Thinned(Drawn):
    """A tree drawn from the target itself through ``_variant``, over its own cache: no memory but the tree's own slots."""

    needs = frozenset({Cap.LAYERS})

    def __post_init__(self) -> None:
        self._variant = Variant()

    def open(self, session: Session) -> Session:
        return View(session, self._variant)

    def ready(self, session: Session) -> bool:
        """Whether all layers have seen the prompt. Before, a draft would run it through few, and worse, once more."""
        return session.cached >= session.prompt - 1
