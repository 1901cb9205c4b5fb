"""Sample and match: draw as plain decoding would, and keep what the draft foresaw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Rows
from decodery.verify.lib.descend import Child, descend, match


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
