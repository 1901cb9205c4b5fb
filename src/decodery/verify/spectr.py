"""SpecTr: k-sequential selection, a near-optimal transport from k independent drafts to one token of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Rows, Scheme, Tensor
from decodery.verify.lib.descend import Child, descend, match, twin


@dataclass
class SpecTr(Verifier):
    """Accepts one of k independent siblings with chance p / (rho q) each, rho the least number that leaves a residual.

    Accepts at least 1 - 1/e of what the best transport could and for k > 1 often more than ``multi-round``.
    With one sibling it is speculative sampling.
    """

    paper = "SpecTr: Fast Speculative Decoding via Optimal Transport (Sun et al. 2023), k-SEQ"
    accepts = frozenset({Scheme.CERTAIN, Scheme.IID})

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        def choose(p: Law, row: int, children: Sequence[Child]) -> Child | int | None:
            left = p.row(row)
            if left is None:
                return None
            if not children or children[0].q is None:
                return match(left, children, rng)
            left, q, k = left.double(), children[0].q.to(left).double(), len(children)
            rho = least_rho(left, q, k)
            for child in children:
                chance = float(left[child.token] / (rho * q[child.token]))
                if chance > 0 and rng.flip(chance):
                    return twin(children, child.token)
            taken = torch.minimum(q, left / rho)
            beta = float(taken.sum())
            # beta = 0: p and q share no token, so nothing was taken out of p
            rest = (left - taken * ((1 - (1 - beta) ** k) / beta)).clamp_(min=0.0) if beta > 0 else left
            return rng.pick(rest if float(rest.sum()) > 0 else left)

        return descend(tree, p, rows, choose)


def least_rho(p: Tensor, q: Tensor, k: int) -> float:
    """The root in [1, k] of ``1 - (1 - beta)^k = rho beta`` with ``beta = sum min(q, p / rho)``, from above.

    ``p``, ``q``: ``[V]`` in float64. Any greater rho is exact as well and accepts less, a smaller one is not exact.
    """
    if k == 1:
        return 1.0
    # Only these tokens have a share in beta; a law behind top-p leaves few.
    both = (p > 0) & (q > 0)
    p, q = p[both], q[both]
    low, high = 1.0, float(k)
    for _ in range(30):  # to a billionth
        rho = (low + high) / 2
        beta = float(torch.minimum(q, p / rho).sum())
        low, high = (low, rho) if 1 - (1 - beta) ** k <= rho * beta else (rho, high)
    return high
