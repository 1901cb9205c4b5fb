"""The planner: its choice is the best one, it never changes what comes out, and it gives up where drafting loses."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.chooser import enumerate_law
from decodery.core.errors import DecoderyError
from decodery.core.law import Law
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Rows, Scheme
from decodery.guide.temperature import Temperature
from decodery.model.toy import ToyModel
from decodery.plan.acceptance import Place
from decodery.plan.costs import Costs
from decodery.plan.planner import MARGIN, OFF, Auto, Fixed, Habits, plan_of
from decodery.run.build import build
from decodery.run.loop import speculate, together

from ..laws.exact import LENGTH, PROMPT, recipe, specimens, variation, wanted

FREE = {1: 1.0, 2: 1.0, 64: 1.0}
DEAR = {1: 1.0, 2: 9.0, 64: 999.0}
TOYS = {"cheap": {1: 1.0, 2: 1.1, 4: 1.3, 8: 2.0}, "free": FREE, "dear": DEAR}


@st.composite
def trees(draw: Any) -> TokenTree:
    tree = TokenTree(scheme=draw(st.sampled_from([Scheme.CERTAIN, Scheme.DISTINCT])), settled=True)
    for i in range(draw(st.integers(0, 6))):
        tree.add(i, draw(st.integers(ROOT, i - 1)))
    return tree


@given(tree=trees(), costs=st.lists(st.floats(0.05, 3.0), min_size=7, max_size=7), data=st.data())
def test_the_choice_equals_brute_force(tree: TokenTree, costs: list[float], data: Any) -> None:
    """Over all parts of the proposal that keep parents, and earlier siblings where they were drawn, none promises more
    tokens per second."""
    plan = Auto(Costs({n: sum(costs[:n]) for n in range(1, 8)}, data.draw(st.floats(0.0, 2.0))))
    last = plan._last = data.draw(st.none() | st.integers(1, 7))
    for node in range(len(tree)):
        rank = tree.children(tree.parents[node]).index(node)
        place = Place(tree.depths[node], rank, 0, 0)
        plan.forecast.rates._seen[place] = (1e9 * data.draw(st.floats(0.01, 0.99)), 1e9)
    promise = plan.forecast.promises(tree)

    def rate(nodes: tuple[int, ...]) -> float:
        return (1 + sum(promise[node] for node in nodes)) / plan.costs(len(nodes) + 1, last)

    def whole(nodes: tuple[int, ...]) -> bool:
        return all(
            (tree.parents[node] in (ROOT, *nodes))
            and (
                tree.scheme is Scheme.CERTAIN
                or all(other in nodes for other in tree.children(tree.parents[node]) if other < node)
            )
            for node in nodes
        )

    parts = [p for n in range(len(tree) + 1) for p in itertools.combinations(range(len(tree)), n) if whole(p)]
    plan.budget(Budget(64, 64))
    chosen = plan.cut(tree)
    best = max(map(rate, parts))
    if best <= MARGIN / plan.costs(1, last):  # not worth it
        assert not chosen.tokens
        return
    nodes = tuple(node for node in range(len(tree)) if tree.tokens[node] in chosen.tokens)
    assert whole(nodes)
    assert rate(nodes) == pytest.approx(best)


@pytest.mark.usefixtures("still_clock")
@pytest.mark.parametrize("draft", [name for name, _ in specimens("draft")])
@pytest.mark.parametrize("cost", TOYS)
def test_planned_decoding_is_exact(draft: str, cost: str, record_property: Any) -> None:
    """Cut or not, drawn or certain: the law of the output is the target's."""
    for toy in (ToyModel(), ToyModel(seed=4, eos=frozenset({2}))):
        built = build(recipe(dict(specimens("draft"))[draft], None, [Temperature(0.9)]), toy)

        def once(rng: Any, toy: ToyModel = toy, built: Any = built) -> tuple[int, ...]:
            session = toy.session(PROMPT)
            plan = Auto(Costs(dict(TOYS[cost])))
            stop = Stop(eos=toy.eos, max_new_tokens=LENGTH + 4)
            parts = (copy.deepcopy(built.draft), built.verify, built.laws, built.constrain, rng, stop, built.want)
            for _, step in together([speculate(session, *parts, plan)]):
                step.seconds["forward"] = 1.0
                if len(session.tokens) >= len(PROMPT) + LENGTH:
                    break
            return tuple(session.tokens[len(PROMPT) :][:LENGTH])

        assert variation(wanted(toy, built), enumerate_law(once)) < 1e-9
        record_property("exact cases", 1)


def run(plan: Auto, draft: str, steps: int = 60) -> list[TokenTree]:
    toy = ToyModel(vocab=8, seed=2)
    built = build(recipe(dict(specimens("draft"))[draft], None, [Temperature(3.0)]), toy)
    from decodery.core.chooser import Seeded

    parts = (built.draft, built.verify, built.laws, built.constrain, Seeded(1), Stop(max_new_tokens=steps, context=64))
    return [step.tree for _, step in together([speculate(toy.session(PROMPT), *parts, built.want, plan)])]


@pytest.mark.usefixtures("still_clock")
def test_it_gives_up_where_drafting_loses_and_asks_again() -> None:
    dear = run(Auto(Costs(dict(DEAR))), "jacobi:window=2")
    assert sum(map(len, dear)) == 0
    free = run(Auto(Costs(dict(FREE))), "jacobi:window=2")
    assert sum(map(len, free)) > len(free)


def test_a_dear_drafter_that_loses_is_hardly_asked_again_not_even_by_the_next_request() -> None:
    habits, asked = Habits(), []
    for _ in range(10):
        plan = Auto(Costs(dict(DEAR)), habits=habits)
        for _ in range(100):
            invited = plan.budget(Budget(8, 8)).nodes > 0
            asked.append(invited)
            plan.cut(TokenTree.chain([1, 2]))
            rows = Rows(torch.zeros(1, 3), [])
            plan.observe(Step(TokenTree(), rows, Law(rows.logits, True), Verdict(()), [0], {"draft": 3.0 * invited}))
    assert asked[0]
    assert sum(asked[:100]) <= 6
    assert sum(asked[100:]) <= 5
    assert sum(asked[500:]) >= 1


def test_unforwarded_drafts_teach_as_well() -> None:
    """Places that were cut away are still judged by what came after."""
    plan = Auto(Costs(dict(DEAR)))
    run(plan, "jacobi:window=2")
    assert plan.forecast.rates._seen


def test_the_prompts_forward_is_no_sign_of_what_a_step_costs() -> None:
    plan = Auto(Costs({1: 1.0, 2: 1.0, 4: 1.0}))
    rows, tree = Rows(torch.zeros(1, 3), []), TokenTree()
    step = Step(tree, rows, Law(rows.logits, True), Verdict(()), [0], {"forward": 50.0})
    plan.observe(step)
    assert plan.costs(1) == 1.0
    plan.observe(step)
    assert plan.costs(1) > 1.0


def test_another_size_than_before_costs_more_and_is_no_sign_of_a_slow_forward() -> None:
    costs = Costs({1: 1.0, 2: 2.0, 4: 4.0}, switch=0.5)
    assert [costs(n, 2) for n in (1, 2, 3, 8)] == [1.5, 2.0, 3.5, 8.5]
    assert costs(3) == 3.0
    costs.correct(4, 4.5, after=2)
    assert costs(4) == 4.0


def test_fixed_and_off() -> None:
    assert plan_of("fixed:3").budget(Budget(9, 4)) == Budget(3, 4)
    assert isinstance(plan_of("fixed:0"), Fixed)
    assert plan_of("off") is OFF
    for bad in ("fixed", "fixed:x", "auto:3", "never"):
        with pytest.raises(DecoderyError, match="auto, fixed:N"):
            plan_of(bad)
