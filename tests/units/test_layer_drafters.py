"""Drafters that run the target through fewer layers, each against its paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from decodery.core.chooser import Seeded
from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.roles import Laws
from decodery.core.tree import ROOT
from decodery.core.values import Budget, Cap, Tensor
from decodery.draft.dynamic_exit import Shadow, best
from decodery.draft.lib.skip_search import SkipSearch
from decodery.draft.swift import Swift, even, without
from decodery.model.arena import Arena
from decodery.model.toy import ToyArena, ToyModel
from decodery.model.variant import Half, spread, through
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.run.spec import part

from ..running import proposed

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
        ("del:every=0", "every, max and pause >= 1"),
        ("del:head=-1", "head >= 0"),
        ("swift:skip=1.2", "0 <= skip <= 1"),
        ("swift:window=0", "window and bayes >= 1"),
        ("easyspec:group=0", "group, length and width >= 1"),
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
        ("swift:units=[4]", r"of 4 layers 4 units can be left out, not \[4\]"),
    ],
)
def test_layers_that_a_model_does_not_have_are_refused(spec: str, says: str) -> None:
    with pytest.raises(DecoderyError, match=says):
        build(Recipe.of(spec), ToyModel())


@pytest.mark.parametrize(
    ("spec", "cap"),
    [
        ("layer-skip", Cap.LAYERS),
        ("del", Cap.LAYERS),
        ("del", Cap.HIDDEN),
        ("swift", Cap.HALVES),
        ("easyspec", Cap.HALVES),
    ],
)
def test_models_that_cannot_are_named(spec: str, cap: Cap) -> None:
    able = ToyModel().can
    with pytest.raises(PartsClash, match=f"draft part '{spec}' needs a.* model with {cap.value}"):
        build(Recipe.of(spec), ToyModel(can=able - {cap}))


def test_a_network_of_two_layers_has_nothing_to_leave_out() -> None:
    with pytest.raises(DecoderyError, match="of 2 layers 0 units"):
        build(Recipe.of("swift"), ToyModel(depth=2))


# ---- del ---------------------------------------------------------------------------------------------------------------


def test_the_choice_is_the_papers() -> None:
    exit, length, tpl = best({2: 0.2, 4: 0.9, 10: 0.95}, depth=12, longest=17)
    assert (exit, length) == (4, 5)
    assert tpl == pytest.approx(0.14642, abs=5e-6)


def test_a_dear_head_is_not_asked_for_little() -> None:
    """One right guess in fifteen pays for one layer of thirty, but not for the head as well."""
    assert best({1: 1 / 15}, depth=30, longest=17)[:2] == (1, 1)
    assert best({1: 1 / 15}, depth=30, longest=17, head=7.0)[1] == 0


def test_exits_that_are_never_right_leave_plain_decoding() -> None:
    _, length, tpl = best({2: 0.0, 4: 0.0, 10: 0.0}, depth=12, longest=17)
    assert length == 0
    assert tpl == pytest.approx(1 / 12)


def test_the_choice_follows_a_stream_that_switches() -> None:
    """Two exits swap who is right; the choice follows within the memory of the decay, twenty passes."""
    shadows = {2: Shadow(), 4: Shadow()}

    def see(right: int) -> int:
        for exit, shadow in shadows.items():
            sure: Any = Tensor([0.9])
            shadow.add(0.95, *((sure, sure[:0]) if exit == right else (sure[:0], sure)))
        return best({exit: shadow.rate for exit, shadow in shadows.items()}, 12, 17)[0]

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


# ---- swift -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bayes", [1, 5, 25])
def test_the_search_keeps_its_size_and_never_gets_worse(bayes: int) -> None:
    """Each unit costs something of its own; with the process the search comes closer to the cheapest than by chance."""
    cost = np.random.default_rng(1).random(20) / 20
    search = SkipSearch(20, frozenset(even(20, 6)), bayes=bayes)
    noise, scores = Seeded(2), []
    for _ in range(100):
        candidate = search.propose(noise.noise())
        assert len(candidate) == 6
        assert candidate <= set(range(20))
        search.learn(candidate, 1 - sum(cost[unit] for unit in candidate))
        scores.append(search.score)
    assert search.tried[0] == even(20, 6)
    assert scores == sorted(scores)
    cheapest = 1 - sum(sorted(cost)[:6])
    if bayes <= 5:
        assert search.score > cheapest - 0.01


def test_the_same_noise_gives_the_same_search() -> None:
    searches = [SkipSearch(20, frozenset(even(20, 6)), bayes=3) for _ in range(2)]
    for search in searches:
        noise = Seeded(3)
        for i in range(12):
            search.learn(search.propose(noise.noise()), i % 5)
    assert searches[0] == searches[1]


def test_requests_of_the_same_seed_go_on_searching() -> None:
    """Their noise begins anew with each: it must not lead to the sets that were tried before."""
    search = SkipSearch(20, frozenset(even(20, 6)))
    for _ in range(12):
        search.learn(search.propose(Seeded(3).noise()), 0.0)
    assert len(set(search.tried)) == 12


def test_the_first_units_are_evenly_spread_layers() -> None:
    for units in range(2, 80, 2):
        for count in range(units + 1):
            chosen = even(units, count)
            assert len(chosen) == count
            assert chosen <= set(range(units))
    assert even(56, 4) == {14, 15, 42, 43}
    assert without(4, ()) == through(range(4))
    assert without(4, {0, 1, 2}) == through([0, Half(2, attends=False), 3])


@pytest.mark.parametrize(("chance", "greedy", "drawn"), [(0.96, 3, 1), (0.9, 5, 3), (0.6, 8, 5), (0.2, 10, 10)])
def test_the_less_sure_the_more_siblings(chance: float, greedy: int, drawn: int) -> None:
    """The published numbers, on a toy whose every law has one token of that chance and eleven others."""
    others = (1 - chance) / 11
    law = Tensor([chance, *[others] * 11]).log()
    for counts, kind in ((greedy, True), (drawn, False)):
        toy = Told(vocab=12, draft=lambda _: law)
        draft = Swift(tree=True, interval=0, length=2).bind(toy)
        session = toy.session((0,))
        draft.begin(session, Laws((), kind))
        for seed in range(1, 20):
            tree = proposed(draft, session, Budget(64, 64), Seeded(seed))
            followed = [i for i in range(len(tree)) if tree.children(i)]
            if kind or tree.tokens[0] == 0:
                assert len(tree.children(ROOT)) == counts
            assert followed == ([0] if tree.tokens[0] == 0 and chance > 0.8 else [])


@dataclass
class Told(ToyModel):
    """A toy whose model through fewer layers is the one given."""

    draft: Any = None

    def arena(self) -> Arena:
        return ToyArena(self.lm, self.draft)
