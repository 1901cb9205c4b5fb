"""How the network is run in a pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Half(NamedTuple):
    """An entry of a layer set: of this layer only the attention runs (``attends``), or only the MLP."""

    layer: int
    attends: bool


class Shared(NamedTuple):
    """An entry of a layer set: consecutive layers whose attentions all read what the first of them receives.

    Their MLPs run one after another. A set that holds such an entry or a ``Half`` needs ``Cap.HALVES``.
    """

    layers: tuple[int, ...]


LayerSet = frozenset[int | Half | Shared]
"""Which layers run, at most one entry for each; an integer is a whole layer (0-based), a layer not mentioned passes its
input on."""


@dataclass(frozen=True)
class Variant:
    """How the network is run in a pass; passes of the same variant can share a forward.

    ``layers``: only these layers run (None: all of them).
    """

    layers: LayerSet | None = None


PLAIN = Variant()
"""The network as it is."""


def through(layers: Iterable[int | Half | Shared]) -> Variant:
    """The variant in which only these layers run."""
    return Variant(frozenset(layers))


def spread(depth: int, speedup: int) -> list[int]:
    """The layers kept: ``depth // speedup`` at most, from the first upwards at even steps, and the last.

    Where the steps do not come out even, a gap is left before the last layer, as in the paper.
    """
    if not isinstance(speedup, int) or speedup < 1:
        raise ValueError(f"speedup is a whole number from 1 to {depth // 2}, not {speedup!r}")
    kept = depth // speedup
    if kept < 2:
        raise ValueError(
            f"speedup={speedup} leaves {kept} of {depth} layers, and the first and the last are needed; "
            f"give at most {depth // 2}"
        )
    step = depth // (kept - 1)
    inner = [layer for layer in range(1, depth - 1) if layer % step == 0]
    return [0, *inner[: kept - 2], depth - 1]
