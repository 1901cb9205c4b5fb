"""What a loaded model can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from decodery.core.values import Cap
from decodery.model.arena import Arena

GRAPHED = frozenset({Cap.TREE, Cap.HIDDEN, Cap.LAYERS})
"""What a graph of OpenVINO may be able to do; the rest is to be had on torch only."""


@dataclass
class Ability:
    """``can``, how to open an arena for so many lanes, for what is missing, why, and what the cache is, in words."""

    can: frozenset[Cap]
    open: Callable[[int], Arena]
    missing: dict[Cap, str] = field(default_factory=dict)
    cache: str = "slots behind a mask"
