"""Recursive speculative decoding with stochastic beam search (RSD-S)."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.part import Asking
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Tensor
from decodery.draft.lib.draft_model import Grown
from decodery.model.session import Session


@dataclass
class RsdS(Grown):
    """Keeps on each of ``length`` levels ``width`` beginnings, drawn without replacement from all of that length.

    ``path``, ``layers``: the draft model, as for ``model``. Stochastic beam search as a race: a beginning of perturbed
    log-probability G arrives at time exp(-G), its first child with it, each further child after an exponential time of
    rate the mass not drawn yet. The first ``width`` of a level stay, and only these are drawn at all, so nothing drawn is
    dropped. Under a greedy law it is beam search.
    """

    paper = (
        "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement (Jeon et al. 2024)"
    )
    emits = frozenset({Scheme.CERTAIN, Scheme.DISTINCT})
    specimens = ({"path": "toy", "width": 2, "length": 1},)
    length: int = 3
    width: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or self.width < 1:
            raise ValueError(f"rsd-s needs length >= 1 and width >= 1, not length={self.length}, width={self.width}")

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        tree = self.empty(Scheme.DISTINCT)
        beams = {ROOT: (0.0, 1.0)}  # node -> when it arrived, and its probability
        depth = min(self.length, budget.depth)
        for level in range(depth):
            if not beams or len(tree) >= budget.nodes:
                break
            laws = yield from self.after(session, tree, list(beams))
            race = [self._runner(node, *beams[node], q) for node, q in zip(beams, laws, strict=True) if q is not None]
            heapq.heapify(race)
            beams = {}
            while race and len(beams) < self.width and len(tree) < budget.nodes:
                _, node, time, mass, q = heapq.heappop(race)
                child, chance, rest = self.draw(tree, node, q, rng)
                beams[child] = time, mass * chance
                if rest is not None and len(beams) < self.width:
                    mass = max(mass * (1 - chance), 1e-300)
                    if not self._laws.greedy and (race or level + 1 < depth):  # else nothing compares times any more
                        time -= math.log(rng.noise()) / mass
                    heapq.heappush(race, self._runner(node, time, mass, rest))
        return tree

    def _runner(self, node: int, time: float, mass: float, q: Tensor) -> tuple[float, int, float, float, Tensor]:
        """The next child of a node: what orders it, and what drawing it takes; ``mass`` is that of ``q``."""
        return -mass * float(q.max()) if self._laws.greedy else time, node, time, mass, q
