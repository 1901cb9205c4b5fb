"""The residual rule, exact for every way of drawing siblings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Rows
from decodery.verify.lib.descend import Child, descend, match, refuse


@dataclass
class Residual(Verifier):
    """Offers children in the order they were drawn; each refusal takes its law out of p.

    With one chain this is speculative sampling (theorem 1), with i.i.d. siblings multi-round verification (SpecInfer),
    with distinct siblings recursive rejection sampling (RSD). Where all children are certain the rule is the same as
    drawing from p and following the child that matches, which costs one random number a token, as plain decoding does.
    """

    paper = "Accelerating Large Language Model Decoding with Speculative Sampling (Chen et al. 2023)"

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        def choose(p: Law, row: int, children: Sequence[Child]) -> Child | int | None:
            left = p.row(row)
            if left is None:
                return None
            if all(child.q is None for child in children):
                return match(left, children, rng)
            for child in children:
                q = 1.0 if child.q is None else float(child.q[child.token])
                if (chance := float(left[child.token])) > 0 and rng.flip(min(1.0, chance / q)):
                    return child
                left = refuse(left, child)
            return rng.pick(left)

        return descend(tree, p, rows, choose)
