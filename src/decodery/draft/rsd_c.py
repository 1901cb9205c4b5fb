"""Recursive speculative decoding with constant branching (RSD-C)."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.part import Asking
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session


@dataclass
class RsdC(Grown):
    """Gives each node of level l ``widths[l]`` distinct children, drawn without replacement.

    ``path``, ``layers``: the draft model, as for ``model``. One draw after another from what is left of q has the law of
    Gumbel-top-k. Under a greedy law the children are the likeliest tokens.
    """

    paper = (
        "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement (Jeon et al. 2024)"
    )
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"path": "toy", "widths": (2,)},)
    widths: tuple[int, ...] = (2, 2, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"rsd-c needs widths such as [2,2,1], each at least 1, not {list(self.widths)}")

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        # Not settled, because a node whose law holds fewer tokens than its width has fewer children.
        return (yield from self.levels(session, budget, rng, self.widths, settled=False))
