"""SpecInfer's multi-round rejection for siblings drawn independently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Rows, Scheme
from decodery.verify.lib.descend import Child, descend, match, refuse, twin


@dataclass
class MultiRound(Verifier):
    """Tries the children of a node in random order; each refusal takes q out of p.

    Siblings may come from different laws (several draft models), but each by itself. In law it equals ``residual``, which
    takes them as they were drawn and so covers draws without replacement as well.
    """

    paper = "SpecInfer: Tree-based Speculative Inference and Verification (Miao et al. 2024), algorithm 2"
    accepts = frozenset({Scheme.CERTAIN, Scheme.IID})

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        def choose(p: Law, row: int, children: Sequence[Child]) -> Child | int | None:
            left = p.row(row)
            if left is None:
                return None
            if all(child.q is None for child in children):
                return match(left, children, rng)
            waiting = list(children)
            while waiting:
                child = waiting.pop(rng.pick(torch.ones(len(waiting))))
                assert child.q is not None, "drawn and certain siblings do not mix"
                if (chance := float(left[child.token])) > 0 and rng.flip(chance / float(child.q[child.token])):
                    return twin(children, child.token)
                left = refuse(left, child)
            return rng.pick(left)

        return descend(tree, p, rows, choose)
