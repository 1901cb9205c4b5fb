"""RAPID's verifier: drafts are judged by a target moved a step towards the drafter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Rows, Scheme, Tensor
from decodery.verify.lib.descend import Child, descend, match, refuse, twin


@dataclass
class RapidVerify(Verifier):
    """Accepts a draft with ``min(1, p_hat / q)``, p_hat the law ``p exp(eta (q - p))`` tilted towards the drafter.

    ``eta``: size of the step; 0 is the residual rule, which is exact. ``tail``: tokens whose tilted chance is below this
    share of the largest keep that of p. p is the guided law at its temperature, so the paper's ``z + eta T (q - p)`` is
    log p + eta (q - p). After a refusal the token is drawn from ``norm(max(p - p_hat, p - q, 0))``, or p where that is
    zero; a later sibling meets the residual rule, and so do certain drafts, which hold no opinion to learn from. A
    one-hot p cannot be tilted: greedy output is the greedy output. Memory: none.
    """

    paper = "Long-Context Inference with Retrieval-Augmented Speculative Decoding (Chen et al. 2025)"
    lossless = False
    accepts = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"eta": 5.0},)
    eta: Annotated[float, Ge(0)] = 5.0
    tail: Annotated[float, Interval(ge=0, le=1)] = 0.1

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        def choose(p: Law, row: int, children: Sequence[Child]) -> Child | int | None:
            left = p.row(row)
            if left is None:
                return None
            if all(child.q is None for child in children):
                return match(left, children, rng)
            first = True
            for child in children:
                q = None if child.q is None else child.q.to(left)
                judge = tilt(left, q, self.eta, self.tail) if first and q is not None else left
                chance = float(judge[child.token])
                if chance > 0 and rng.flip(min(1.0, chance / (1.0 if q is None else float(q[child.token])))):
                    # Unlike in the residual rule, a refused token may keep a chance; its repetition is a ghost without a row.
                    return twin(children, child.token)
                left = remain(left, q, judge) if first and q is not None else refuse(left, child)
                first = False
            return rng.pick(left)

        return descend(tree, p, rows, choose)


def tilt(p: Tensor, q: Tensor, eta: float, tail: float) -> Tensor:
    """p_hat ``[V]``: one step on ``T^2 KL(q || p)`` from p's logits, with the tail protected; zero where p is."""
    if eta == 0:  # not even rounding may tell it from the residual rule
        return p
    moved = (p.log() + eta * (q - p)).softmax(-1)
    kept = torch.where(moved < tail * moved.max(), p, moved)
    return kept / kept.sum()


def remain(p: Tensor, q: Tensor, judge: Tensor) -> Tensor:
    """What p has left where drafts of q were judged by another law: ``norm(max(p - judge, p - q, 0))``."""
    rest = (p - torch.minimum(q, judge)).clamp_(min=0.0)
    mass = float(rest.sum())
    return rest / mass if mass > 0 else p
