"""Sample and match: draw as plain decoding would, and keep what the draft foresaw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decodery.law import Law
from decodery.tree import TokenTree
from decodery.verify.walk import Child, descend, match
from decodery.words import Chooser, Rows, Verdict, Verifier


@dataclass
class SampleAndMatch(Verifier):
    """Draws from p at each node and goes on while the draw is a child.

    It never looks at q, so it is exact for any tree, however built, and takes one random number a token. For certain
    trees nothing accepts more; of drawn ones ``residual`` accepts more. A seed gives the same text as without a draft
    wherever drafting takes no random numbers.
    """

    paper = "Inference with Reference: Lossless Acceleration of Large Language Models (Yang et al. 2023)"

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        def choose(p: Law, row: int, children: Sequence[Child]) -> Child | int | None:
            return None if (left := p.row(row)) is None else match(left, children, rng)

        return descend(tree, p, rows, choose)
