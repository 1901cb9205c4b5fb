"""The greedy fast path: what the residual rule becomes when p is one-hot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Rows
from decodery.verify.lib.descend import Child, descend


@dataclass
class Greedy(Verifier):
    """Follows the child that is the likeliest token; for greedy laws only, where it equals ``residual``."""

    paper = "Blockwise Parallel Decoding for Deep Autoregressive Models (Stern et al. 2018), section 3"
    greedy_only = True

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        def choose(p: Law, row: int, children: Sequence[Child]) -> Child | int | None:
            best = p.best[row]
            return next((child for child in children if child.token == best), best)

        return descend(tree, p, rows, choose)
