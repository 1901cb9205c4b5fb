"""Unified layer skipping: another, quicker model made of an evenly spread part of a model's layers."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

from decodery.core.errors import BadModel
from decodery.core.values import Cap
from decodery.model.change import Change
from decodery.model.model import Model
from decodery.model.variant import spread, through


@dataclass(frozen=True)
class LayerSpeedup(Change):
    """Sends every new token through ``1/speedup`` of the layers, evenly spread; the prompt goes through all.

    The paper trains the network for its layers; without that, few models bear a speedup of 2. The thinned model cannot
    draft for itself, for new tokens are not in the cache of the layers they skipped.
    """

    paper = "Accelerating Inference in LLMs with a Unified Layer Skipping Strategy (Liu et al. 2024)"
    needs = frozenset({Cap.LAYERS})
    speedup: int = 2

    def __call__(self, model: Model) -> Model:
        """Raises ``BadModel`` where the model offers no layer subsets, or the speedup leaves less than two layers."""
        return thin(model, self.speedup)


def thin(model: Model, speedup: int) -> Model:
    """The model that ``LayerSpeedup`` makes; it shares the network with ``model``, which stays as it is."""
    if Cap.LAYERS not in model.can:
        reason = model.missing.get(Cap.LAYERS, "it skips layers already")
        raise BadModel(f"{model.name} cannot skip layers: {reason}")
    try:
        layers = spread(model.depth, speedup)
    except ValueError as error:
        raise BadModel(f"layer-speedup: {error}") from error
    thinned = copy.copy(model)
    lost = dict.fromkeys(model.can & {Cap.LAYERS, Cap.HALVES, Cap.HIDDEN}, "new tokens skip layers already")
    thinned.ability = dataclasses.replace(model.ability, can=model.can - lost.keys(), missing={**model.missing, **lost})
    thinned.variant, thinned.lossless = through(layers), False
    thinned.name = f"{model.name} ({len(layers)} of {model.depth} layers)"
    return thinned
