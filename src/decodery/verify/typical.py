"""Medusa's typical acceptance: keeps drafts that are likely enough, whatever a draw would have said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.step import Verdict
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows


@dataclass
class Typical(Verifier):
    """Keeps the longest path on which every draft has ``p > min(epsilon, alpha exp(-H(p)))``, H the entropy in nats.

    Of several the likeliest path. The token that follows is the likeliest one, not a draw: nothing here is random. So the
    output leans towards likely tokens; under a greedy law it is the greedy output.
    """

    paper = "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads (Cai et al. 2024)"
    lossless = False
    epsilon: Annotated[float, Interval(gt=0, lt=1)] = 0.09
    alpha: Annotated[float, Interval(gt=0, lt=1)] = 0.3

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        log_p: dict[int, float] = {ROOT: 0.0}
        for parent in (ROOT, *range(len(tree))):
            if parent not in log_p or (law := p.row(rows.at(parent) or 0)) is None:
                continue
            entropy = float(torch.special.entr(law).sum())
            for child in tree.children(parent):
                chance = float(law[tree.tokens[child]])
                if not tree.ghost[child] and chance > min(self.epsilon, self.alpha * math.exp(-entropy)):
                    log_p[child] = log_p[parent] + math.log(chance)
        depth = {node: 0 if node == ROOT else tree.depths[node] for node in log_p}
        end = max(log_p, key=lambda node: (depth[node], log_p[node]))
        row = rows.at(end)
        assert row is not None
        best = p.best[row]
        return Verdict(tuple(tree.path(end)), () if best is None else (best,))
