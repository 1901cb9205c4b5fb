"""A model thinned to a part of its layers: all drafters emit its law, which is the whole model's for the first token only."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import pytest

from decodery.core.errors import PartsClash
from decodery.core.roles import Part
from decodery.core.values import Cap, Tensor
from decodery.model.toy import LanguageModel, ToyModel
from decodery.model.variant import through
from decodery.run.build import build
from decodery.run.spec import part

from .exact import PROMPT, Count, produced, recipe, specimens, variation, wanted

DRAFTS = list(specimens("draft"))
GUIDES = {"greedy": (), "sampled": ("temperature:0.8", "top-p:0.9", "repetition:penalty=1.3")}


@dataclass
class Reference(ToyModel):
    """Says what the thinned model should: after the prompt the whole model, after anything longer the shallow one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole, shallow = self.lm, self.shallow

        def lm(words: tuple[int, ...]) -> Tensor:
            chosen: LanguageModel = whole if len(words) == len(PROMPT) else shallow
            return chosen(words)

        self.lm = lm


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("guides", GUIDES.values(), ids=GUIDES)
@pytest.mark.parametrize("draft", [draft for _, draft in DRAFTS], ids=[name for name, _ in DRAFTS])
def test_drafts_emit_the_law_of_the_thinned_model(draft: Part, guides: tuple[str, ...], batch: int) -> None:
    can = frozenset({Cap.TREE})
    chosen = recipe(copy.deepcopy(draft), None, [part("guide", guide) for guide in guides])
    try:
        built = build(chosen, ToyModel(can=can))
    except PartsClash as refused:  # a thinned model has no layers left to draft with
        assert re.search("layer subsets|fewer layers|halves of layers|hidden states", str(refused))
        return
    law = produced(ToyModel(can=can), built, Count(), batch=batch, variant=through({0}))
    assert variation(law, wanted(Reference(can=can), built)) < 1e-9
    assert variation(law, wanted(ToyModel(can=can), built)) > 1e-3
