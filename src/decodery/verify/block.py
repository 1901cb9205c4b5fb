"""Block verification: whole paths are judged together, from the leaves up."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Tensor


@dataclass
class Block(Verifier):
    """Weighs each path by ``w = min(1, w_parent p / q)`` and accepts the deepest that a coin of chance w lets stand.

    A refused node takes q out of ``w_parent p`` and hands what is left to its parent. On a chain this is block
    verification, which no valid rule beats in expected tokens; on trees it is traversal verification, for siblings drawn
    in any way.
    """

    paper = (
        "Block Verification Accelerates Speculative Decoding (Sun et al. 2024), algorithm 2; Traversal Verification for "
        "Speculative Tree Decoding (Weng et al. 2025)"
    )

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        weight: dict[int, float] = {ROOT: 1.0}
        left: dict[int, Tensor | None] = {}
        waiting: dict[int, list[int]] = {}
        node = ROOT
        while True:
            if node not in waiting:  # first visit
                row = rows.at(node)
                law = None if row is None else p.row(row)
                left[node] = None if law is None else law.double()
                # Below a ghost or a dead row everything is refused for certain.
                waiting[node] = [] if law is None else tree.children(node)[::-1]
            law = left[node]
            if waiting[node]:
                assert law is not None
                child = waiting[node].pop()
                q = tree.q[child]
                ratio = float(law[tree.tokens[child]]) / (1.0 if q is None else float(q[tree.tokens[child]]))
                weight[child] = 0.0 if tree.ghost[child] else min(1.0, weight[node] * ratio)
                node = child
            elif weight[node] > 0 and rng.flip(weight[node]):  # at the root for certain
                return Verdict(tuple(tree.path(node)), () if law is None else (rng.pick(law),))
            else:
                child, node = node, tree.parents[node]
                weight[node], left[node] = _without(tree, child, weight[node], left[node])


def _without(tree: TokenTree, child: int, weight: float, law: Tensor | None) -> tuple[float, Tensor | None]:
    """Weight and law of a node once a child was refused: ``S / (S + 1 - w)`` and ``(w p - q)+ / S``, S its sum."""
    assert law is not None
    token, q = tree.tokens[child], tree.q[child]
    rest = weight * law
    if q is not None:
        rest = (rest - q.to(rest)).clamp_(min=0.0)
    if weight == 1.0 and not float(rest.sum()) > 0:  # p and q agree up to rounding, and p is as good
        rest = law.clone()
    rest[token] = 0.0  # by the rule already, up to rounding: what was refused stays refused
    mass = float(rest.sum())
    return (mass / (mass + (1.0 - weight)), rest / mass) if mass > 0 else (float(weight == 1.0), law)
