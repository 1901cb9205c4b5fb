"""Speculative decoding with a draft model: a smaller model, or the target itself with fewer layers."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.part import Asking
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session


@dataclass
class ModelDraft(Grown):
    """Draws a tree from a draft model, level by level, under the same guides as the target.

    ``path``: what ``decodery.load`` takes, or a loaded model; it must have the target's vocabulary. Empty: the target
    itself through ``layers`` of its layers (default: all but the middle third). ``length``: levels. ``width``: children of
    each node on the first level, one below. Under a greedy law the children are the likeliest tokens; otherwise they are
    drawn without replacement.
    """

    paper = "Fast Inference from Transformers via Speculative Decoding (Leviathan et al. 2023); Draft & Verify (Zhang et al.)"
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"length": 2}, {"path": "toy", "width": 2, "length": 1})
    length: int = 3
    width: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or self.width < 1:
            raise ValueError(f"model needs length >= 1 and width >= 1, not length={self.length}, width={self.width}")

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        widths = [self.width, *[1] * (self.length - 1)]
        # The first level's law is the same whatever is drawn, and below there is one child each: a shape known before.
        return (yield from self.levels(session, budget, rng, widths, settled=True))
