"""Drafters that run the target through fewer layers, each against its paper's numbers."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.build import build
from decodery.draft.dynamic_exit import Shadow, best
from decodery.draft.layer_skip import spread
from decodery.errors import DecoderyError, PartsClash
from decodery.model.toy import ToyModel
from decodery.recipe import Recipe, part
from decodery.words import Cap, Tensor

# ---- layer-skip --------------------------------------------------------------------------------------------------------


def test_spread_reproduces_the_papers_sets() -> None:
    assert spread(30, 5) == [0, 6, 12, 18, 24, 29]
    assert spread(30, 2) == [*range(0, 27, 2), 29]
    assert spread(30, 3) == [*range(0, 25, 3), 29]
    assert spread(30, 1) == list(range(30))
    assert spread(30, 15) == [0, 29]


def test_spread_keeps_both_ends_and_its_promise() -> None:
    for depth in range(4, 81):
        for speedup in range(2, 11):
            if depth // speedup >= 2:
                kept = spread(depth, speedup)
                assert kept == sorted(set(kept))
                assert kept[0] == 0
                assert kept[-1] == depth - 1
                assert len(kept) <= depth // speedup


# ---- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("layer-skip:speedup=0", "speedup >= 1"),
        ("layer-skip:length=0", "length >= 1"),
        ("del:decay=0.0", "decay <= 1"),
        ("del:every=0", "every >= 1"),
    ],
)
def test_bad_parameters_are_refused(spec: str, says: str) -> None:
    with pytest.raises(DecoderyError, match=says):
        part("draft", spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("layer-skip:speedup=3", "leaves 1 of 4 layers.*at most 2"),
        ("del:exits=[4]", r"after 1 to 3 layers, not \[4\]"),
        ("del:exits=[0,2]", "after 1 to 3 layers"),
    ],
)
def test_layers_that_a_model_does_not_have_are_refused(spec: str, says: str) -> None:
    with pytest.raises(DecoderyError, match=says):
        build(Recipe.of(spec), ToyModel())


@pytest.mark.parametrize(("spec", "cap"), [("layer-skip", Cap.LAYERS), ("del", Cap.LAYERS), ("del", Cap.HIDDEN)])
def test_models_that_cannot_are_named(spec: str, cap: Cap) -> None:
    able = ToyModel().can
    with pytest.raises(PartsClash, match=f"draft part '{spec}' needs a model with {cap.value}"):
        build(Recipe.of(spec), ToyModel(can=able - {cap}))


# ---- del ---------------------------------------------------------------------------------------------------------------


def test_the_choice_is_the_papers() -> None:
    choice = best({2: 0.2, 4: 0.9, 10: 0.95}, depth=12, longest=17)
    assert (choice.exit, choice.length) == (4, 5)
    assert choice.tpl == pytest.approx(0.14642, abs=5e-6)


def test_exits_that_are_never_right_leave_plain_decoding() -> None:
    choice = best({2: 0.0, 4: 0.0, 10: 0.0}, depth=12, longest=17)
    assert choice.length == 0
    assert choice.tpl == pytest.approx(1 / 12)


def test_the_choice_follows_a_stream_that_switches() -> None:
    """Two exits swap who is right; the choice follows within the memory of the decay, twenty passes."""
    shadows = {2: Shadow(), 4: Shadow()}

    def see(right: int) -> int:
        for exit, shadow in shadows.items():
            sure: Any = Tensor([0.9])
            shadow.add(0.95, *((sure, sure[:0]) if exit == right else (sure[:0], sure)))
        return best({exit: shadow.rate for exit, shadow in shadows.items()}, 12, 17).exit

    assert [see(2) for _ in range(60)][-1] == 2
    followed = [see(4) for _ in range(40)]
    assert followed.index(4) <= 20
    assert set(followed[followed.index(4) :]) == {4}


def test_a_threshold_needs_right_and_wrong_guesses() -> None:
    shadow = Shadow()
    assert shadow.threshold == 0.0
    shadow.add(0.95, Tensor([0.9, 0.7]), Tensor([]))
    assert shadow.threshold == 0.0
    shadow.add(0.95, Tensor([]), Tensor([0.2]))
    assert shadow.threshold == pytest.approx((0.8 + 0.2) / 2)
