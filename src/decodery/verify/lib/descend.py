"""Walking down a tree, one choice a node: what most verifiers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.step import Verdict
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Tensor


class Child(NamedTuple):
    """A candidate next token: its node, its token, and the law it was drawn from (None: certain)."""

    node: int
    token: int
    q: Tensor | None


Choice = Callable[[Law, int, Sequence[Child]], "Child | int | None"]
"""(p, row, children) -> the accepted child, or another token instead, or None where the row is dead."""


def descend(tree: TokenTree, p: Law, rows: Rows, choose: Choice) -> Verdict:
    """Follow accepted children from the root; stop at the first token that is no child.

    A dead row (nothing allowed) ends the verdict with no extra token.
    """
    path: list[int] = []
    node = ROOT
    while (row := rows.at(node)) is not None:
        choice = choose(p, row, [Child(i, tree.tokens[i], tree.q[i]) for i in tree.children(node)])
        if not isinstance(choice, Child):
            return Verdict(tuple(path), () if choice is None else (choice,))
        path.append(node := choice.node)
    raise ValueError(f"node {node} is a ghost and cannot be accepted")


def match(left: Tensor, children: Sequence[Child], rng: Chooser) -> Child | int:
    """Draw from ``left`` ``[V]`` and follow the child that was drawn; of repeated siblings the first, the others are ghosts."""
    token = rng.pick(left)
    return twin(children, token) or token


def twin(children: Sequence[Child], token: int) -> Child | None:
    """The first child with this token: the one that is forwarded, and that stands for its repetitions."""
    return next((child for child in children if child.token == token), None)


def refuse(left: Tensor, child: Child) -> Tensor:
    """``left`` ``[V]`` once a child was refused: ``norm(max(left - q, 0))``, in which its token has no chance."""
    rest = left.clone() if child.q is None else (left - child.q.to(left)).clamp_(min=0.0)
    if not float(rest.sum()) > 0:  # p and q agree up to rounding, and p is as good
        rest = left.clone()
    rest[child.token] = 0.0  # by the rule already, up to rounding: what was refused stays refused
    mass = float(rest.sum())
    return rest / mass if mass > 0 else left
