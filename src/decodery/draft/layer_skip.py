"""Unified layer skipping: a fixed, evenly spread part of the target's layers drafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.draft.lib.draft_model import Thinned
from decodery.model.session import Session
from decodery.model.variant import spread, through


@dataclass
class LayerSkip(Thinned):
    """Draws a tree from the target itself through every ``speedup``-th layer, the first and the last always among them.

    ``speedup``: the target has L layers, a draft runs at most ``L / speedup`` of them (so speed-up is that of its layers,
    not of the decoding). ``length``: levels. ``width``: children of each node on the first level, one below. The prompt
    goes through all layers. Training the network for its set, as the paper does, is left to others; without it, few
    models bear a speedup of 2. The cache is the target's own: a draft takes the slots of its tree and no other memory.
    The same layers as a model of its own, which is not lossless: ``load(..., change="layer-speedup:2")``.
    """

    paper = "Accelerating Inference in LLMs with a Unified Layer Skipping Strategy (Liu et al. 2024)"
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"length": 2}, {"width": 2, "length": 1})
    speedup: int = 2
    length: int = 3
    width: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.speedup < 1 or self.length < 1 or self.width < 1:
            raise ValueError(
                "layer-skip needs speedup >= 1, length >= 1 and width >= 1, "
                f"not speedup={self.speedup}, length={self.length}, width={self.width}"
            )

    def bind(self, model: Model) -> Self:
        self._variant = through(spread(model.depth, self.speedup))
        return self

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        if not self.ready(session):
            return TokenTree()
        widths = [self.width, *[1] * (self.length - 1)]
        return (yield from self.levels(session, budget, rng, widths, settled=True))
