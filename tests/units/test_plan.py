"""The planner: its choice is the best one, it never changes what comes out, and it gives up where drafting loses."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decodery.constrain.free import Free
from decodery.core.chooser import Seeded, enumerate_law
from decodery.core.errors import DecoderyError
from decodery.core.law import Law
from decodery.core.roles import Laws
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import LOGITS, SURE, Budget, Offer, Rows, Scheme
from decodery.draft.none import NoDraft
from decodery.guide.temperature import Temperature
from decodery.model.session import Ask
from decodery.model.toy import ToyModel
from decodery.plan.acceptance import Place
from decodery.plan.costs import Costs
from decodery.plan.planner import CURIOUS, MARGIN, OFF, Auto, Fixed, Habits, JointPlan, plans
from decodery.run.build import build
from decodery.verify.greedy import Greedy

from ..laws.exact import LENGTH, PROMPT, recipe, specimens, variation, wanted
from ..running import speculate, together

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
    last = data.draw(st.none() | st.integers(1, 7))
    for node in range(len(tree)):
        rank = tree.children(tree.parents[node]).index(node)
        place = Place(tree.depths[node], rank, 0, 0)
        plan.forecast.rates.tally.known[place] = (1e9 * data.draw(st.floats(0.01, 0.99)), 1e9)
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
    ask = Ask(ToyModel(vocab=8).session(PROMPT), tree, offer=plan.offer(tree, 0.0))
    (kept,) = JointPlan(plan.costs, last).cut([ask])
    assert kept is not None
    chosen = tree.only(kept)
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
            for _ in together([speculate(session, *parts, plan)], Seconds(plan.costs)):
                if len(session.tokens) >= len(PROMPT) + LENGTH:
                    break
            return tuple(session.tokens[len(PROMPT) :][:LENGTH])

        assert variation(wanted(toy, built), enumerate_law(once)) < 1e-9
        record_property("exact cases", 1)


class Seconds(JointPlan):
    """Every pass takes a second."""

    def observe(self, positions: int, seconds: float, prefill: bool) -> None:
        super().observe(positions, 1.0, prefill)


def run(plan: Auto, draft: str, steps: int = 60) -> list[TokenTree]:
    toy = ToyModel(vocab=8, seed=2)
    built = build(recipe(dict(specimens("draft"))[draft], None, [Temperature(3.0)]), toy)
    parts = (built.draft, built.verify, built.laws, built.constrain, Seeded(1), Stop(max_new_tokens=steps, context=64))
    program = speculate(toy.session(PROMPT), *parts, built.want, plan)
    return [step.tree for _, step in together([program], JointPlan(plan.costs))]


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
            plan.offer(TokenTree.chain([1, 2]), 3.0 * invited)
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
    assert plan.forecast.rates.tally.known


def test_the_prompts_forward_is_no_sign_of_what_a_step_costs() -> None:
    joint = JointPlan(Costs({1: 1.0, 2: 1.0, 4: 1.0}))
    joint.observe(1, 50.0, prefill=True)
    assert joint.costs(1) == 1.0
    joint.observe(1, 50.0, prefill=False)
    assert joint.costs(1) == 1.0, (
        "nor is the first step after it, for which the network changes from many tokens to few"
    )
    joint.observe(1, 50.0, prefill=False)
    assert joint.costs(1) > 1.0
    joint = JointPlan(Costs({1: 1.0, 2: 1.0, 4: 1.0}))
    joint.observe(1, 50.0, prefill=False)
    assert joint.costs(1) == 1.0, "of the very first nobody knows what came before it"


def test_what_a_change_of_size_costs_is_learnt() -> None:
    """It goes where passes no longer show it, and one that was disturbed teaches little."""
    costs = Costs({1: 1.0, 2: 1.0, 4: 1.0}, 0.5)
    for n in (4, 1) * 40:
        costs.correct(n, 1.0, after=5 - n)
    assert costs.switch < 0.01
    assert costs.table == {1: 1.0, 2: 1.0, 4: 1.0}
    costs.correct(4, 100.0, after=1)
    assert costs.switch < 0.2


def test_sizes_that_no_pass_has_corrected_follow_the_others() -> None:
    """A curve that was measured while the machine was busy is wrong everywhere, and plain decoding shows only c(1)."""
    costs = Costs({1: 3.0, 2: 4.5, 4: 6.0})
    for _ in range(60):
        costs.correct(1, 1.0)
    assert costs(1) == pytest.approx(1.0, rel=0.02)
    assert costs(4) == pytest.approx(2.0, rel=0.02)
    for _ in range(40):
        costs.correct(4, 1.5)
    for _ in range(40):
        costs.correct(1, 1.2)
        costs.correct(4, 1.5)
    assert costs(1) == pytest.approx(1.2, rel=0.05)
    assert costs(4) == pytest.approx(1.5, rel=0.05), "one that passes do correct stays where they are"
    assert list(costs.table.values()) == sorted(costs.table.values())


def test_a_cost_that_keeps_all_drafts_away_is_tried_in_the_end() -> None:
    """Else nothing would ever correct it; a cost that is too high even so is not tried."""
    tree = TokenTree.chain([1, 2, 3])
    ask: Any = Ask(None, tree, offer=Offer([0.8, 0.6, 0.4], 0.0))  # type: ignore[arg-type]
    joint = JointPlan(Costs({1: 1.0, 2: 2.0, 4: 4.0}))
    kept = [joint.cut([ask])[0] for _ in range(4 * CURIOUS)]
    assert kept.count([0]) == 3
    assert kept.count([]) == len(kept) - 3
    for n in [*[1] * 20, 2]:
        joint.costs.correct(n, 1.0)
    assert joint.cut([ask])[0], "what one pass has shown is believed"
    dear = JointPlan(Costs({1: 1.0, 2: 4.0, 4: 8.0}))
    assert not any(dear.cut([ask])[0] for _ in range(4 * CURIOUS))
    no_drafts: Any = Ask(None, TokenTree(), offer=Offer([], 0.0))  # type: ignore[arg-type]
    assert not any(joint.cut([no_drafts])[0] for _ in range(4 * CURIOUS))


def test_the_planner_is_told_which_pass_read_a_prompt() -> None:
    """Also where a prompt is read beside the steps of another text."""
    told: list[tuple[int, bool]] = []

    class Spy(JointPlan):
        def observe(self, positions: int, seconds: float, prefill: bool) -> None:
            told.append((positions, prefill))

    toy = ToyModel(vocab=8)
    arena = toy.arena()
    free = (NoDraft(), Greedy(), Laws(), Free(), Seeded(0))
    one, two = (
        speculate(toy.session(text, arena), *free, Stop(max_new_tokens=3), LOGITS, Auto(Costs(dict(FREE))))
        for text in (PROMPT, PROMPT[:1])
    )
    for _ in together([one], Spy(Costs(dict(FREE)))):
        pass
    assert told == [(3, True), (1, False), (1, False)]
    for _ in together([two], Spy(Costs(dict(FREE)))):
        pass
    assert told[3:] == [(1, False)] * 3


def test_another_size_than_before_costs_more_and_is_no_sign_of_a_slow_forward() -> None:
    costs = Costs({1: 1.0, 2: 2.0, 4: 4.0}, switch=0.5)
    assert [costs(n, 2) for n in (1, 2, 3, 8)] == [1.5, 2.0, 3.5, 8.5]
    assert costs(3) == 3.0
    costs.correct(4, 4.5, after=2)
    assert costs(4) == 4.0


def test_fixed_and_off() -> None:
    toy: Any = ToyModel()
    assert plans("fixed:3", toy, NoDraft(), [5, 7]) == ([Fixed(3), Fixed(3)], None)
    assert Fixed(3).budget(Budget(9, 4)) == Budget(3, 4)
    assert plans("fixed:0", toy, NoDraft(), [5]) == ([Fixed(0)], None)
    assert plans("off", toy, NoDraft(), [5, 7]) == ([OFF, OFF], None)
    for bad in ("fixed", "fixed:x", "auto:3", "never"):
        with pytest.raises(DecoderyError, match="auto, fixed:N"):
            plans(bad, toy, NoDraft(), [5])


def test_nodes_are_kept_in_the_order_of_the_tree() -> None:
    """The states of a constraint stand in this order; a later node may promise more than an earlier one."""
    tree = TokenTree()
    tree.add(tree.add(3, kind="poor"), kind="poor")
    tree.add(4, kind=SURE)
    plan = Auto(Costs(dict(FREE)))
    plan.budget(Budget(64, 64))
    ask = Ask(ToyModel(vocab=8).session(PROMPT), tree, offer=plan.offer(tree, 0.0))
    assert JointPlan(plan.costs, None).cut([ask]) == [[0, 1, 2]]
