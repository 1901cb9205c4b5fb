"""What a constraint forces, or nearly forces, is drafted: keys, literals, members of an enumeration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Self

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.part import Model
from decodery.core.roles import Drafter, Laws
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import SURE, Budget
from decodery.core.walk import run
from decodery.model.session import Session

FEW = 48
"""Where no more tokens than these are allowed, they are compared: most are beginnings of one another."""


@dataclass
class Schema(Drafter):
    """Drafts the texts that the request's constraint leaves no choice about, and a branch for each of a few choices.

    ``nodes``: of the tree at most. ``width``: the most choices at one place that are drafted, each with what it forces next.
    Where the answer is whole, the end of sequence is drafted. Without a constraint that forces anything, nothing is drafted.
    """

    paper = "Fast-forwarding of forced tokens: JSONSchemaBench (Geng et al. 2025), guidance; as drafts, so that it stays exact"
    specimens = ({},)
    obeys = True
    nodes: Annotated[int, Ge(1)] = 24
    width: Annotated[int, Ge(1)] = 4

    def bind(self, model: Model) -> Self:
        super().bind(model)
        self._eos = model.eos
        self._spelled = model.matcher_tokenizer
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        self._constrain = laws.constrain
        if self._constrain is not None and self._constrain.forces:
            self._start, self._read = len(session.tokens), list[int]()
            self._first = self._state = self._constrain.start(session.tokens)

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        if self._constrain is None or not self._constrain.forces or min(budget) < 1:
            return TokenTree()
        tree = TokenTree(keen=True)
        answer = session.tokens[self._start :]
        if answer[: len(self._read)] != self._read:  # some of it was taken back
            self._read, self._state = [], self._first
        self._state = run(self._constrain, self._state, answer[len(self._read) :], self._eos)
        self._read = answer
        if self._state is not None:
            self._grow(tree, Budget(min(budget.nodes, self.nodes), budget.depth))
        return tree

    def _grow(self, tree: TokenTree, budget: Budget) -> None:
        """Add what is forced, then branch; the branches go on in turns until the tree is full."""
        todo: list[tuple[int, Any, bool]] = [(ROOT, self._state, True)]
        while todo and len(tree) < budget.nodes:
            node, state, sure = todo.pop(0)
            for token in self._forced(state):
                if len(tree) >= budget.nodes or (node != ROOT and tree.depths[node] >= budget.depth):
                    return
                after = run(self._constrain, state, [token], self._eos) if self._constrain else None
                if after is None:
                    break
                node, state = tree.add(token, node, kind=SURE if sure else "behind a choice"), after
            else:
                depth = 0 if node == ROOT else tree.depths[node]
                if depth < budget.depth and not (node != ROOT and tree.tokens[node] in self._eos):
                    for rank, (token, after) in enumerate(self._choices(state)):
                        if len(tree) < budget.nodes:
                            todo.append((tree.add(token, node, kind=("choice", rank)), after, False))

    def _forced(self, state: Any) -> list[int]:
        assert self._constrain is not None
        if self._constrain.complete(state):
            return sorted(self._eos)[:1]
        return list(self._constrain.forced(state))

    def _choices(self, state: Any) -> Iterator[tuple[int, Any]]:
        """The longest allowed tokens, where they are few, and the states after them."""
        assert self._constrain is not None
        mask = self._constrain.mask(state)
        if mask is None or not 0 < int(mask.count_nonzero()) <= FEW:
            return
        decode = self._spelled().decode_bytes
        spelled = sorted((decode([token]), token) for token in mask.nonzero()[:, 0].tolist())
        # In this order what begins like a text stands right behind it.
        longest = [t for (text, t), (after, _) in pairwise([*spelled, (b"", -1)]) if not after.startswith(text)]
        if len(longest) <= self.width:
            for token in longest:
                if (after := self._constrain.advance(state, token)) is not None:
                    yield token, after
