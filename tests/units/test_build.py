"""What does not fit is refused by name, before anything runs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from decodery.core.errors import DecoderyError, PartsClash
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"verify": "greedy", "guide": "top-p:0.9"}, "'greedy' is for greedy decoding, but guide part 'top-p' samples"),
        ({"search": "beam", "draft": "ngram"}, "'beam' explores without drafts, but draft part 'ngram'"),
        ({"search": "beam", "guide": ["temperature:0.5"]}, "'beam' maximises, but guide part 'temperature' samples"),
        ({"guide": ["cfg:2,negative=a", "cfg:3,negative=b"]}, "guide part 'cfg' is named twice"),
        ({"guide": [{"logit-bias": {"bias": {"9": 1.0}}}]}, "token 9 is outside the vocabulary, 0 to 2"),
        ({"constrain": r"regex:(?=a)b"}, "look-around"),
    ],
)
def test_clashes(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DecoderyError, match=re.escape(message)):
        build(Recipe.of(**parts), ToyModel())


def test_a_draft_by_fewer_layers_needs_a_model_with_layers() -> None:
    with pytest.raises(PartsClash, match="give path="):
        build(Recipe.of("model"), ToyModel(can=frozenset()))
