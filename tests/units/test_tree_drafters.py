"""Where trees grow: each policy against its paper, against brute force, and under the planner."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.roles import Drafter, Laws
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import LOGITS, Budget, Offer, Scheme, Tensor
from decodery.draft.specdec_plus_plus import band
from decodery.guide.temperature import Temperature
from decodery.guide.top_p import TopP
from decodery.model.arena import Arena
from decodery.model.toy import ToyArena, ToyModel
from decodery.model.turn import forward
from decodery.plan.costs import Costs
from decodery.plan.planner import Auto, JointPlan
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.run.spec import part
from decodery.verify.residual import Residual

from ..laws.exact import LENGTH, PROMPT, recipe, variation, wanted
from ..running import proposed, speculate, together

GROWN = ["model", "iid", "rsd-c", "rsd-s", "dyspec", "specdec++"]
WIDE = Budget(64, 64)
WARM = (Temperature(0.9),)


@dataclass
class Told(ToyModel):
    """A toy with room for long texts, whose draft model is the one given, or itself."""

    draft: Any = None

    def arena(self, lanes: int = 1) -> Arena:
        return ToyArena(self.lm, self.lm, context=4000)

    def companion(self, spec: object) -> ToyModel:
        other = Told(self.vocab, self.seed)
        other.lm = self.draft or self.lm
        return other


def propose(
    spec: str, rng: Chooser, draft: Any = None, vocab: int = 4, greedy: bool = False, budget: Budget = WIDE
) -> tuple[TokenTree, Any]:
    """A tree of the drafter, and the law ``q(path)`` that it drew from."""
    toy = Told(vocab=vocab, draft=draft)
    drafter = part("draft", spec).bind(toy)
    assert isinstance(drafter, Drafter)
    session = toy.session(PROMPT)
    drafter.begin(session, Laws((), greedy))
    lm = draft or toy.lm
    return proposed(drafter, session, budget, rng), lambda path: lm((*PROMPT, *path)).softmax(-1)


def uniform(words: tuple[int, ...]) -> Tensor:
    return torch.zeros(4, dtype=torch.float64)


def sure(words: tuple[int, ...]) -> Tensor:
    return torch.tensor([0.0, 80.0, 0.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("spec", ["rsd-c:path=toy,widths=[3,2,1]", "rsd-s:path=toy,width=3", "dyspec:path=toy,nodes=9"])
def test_each_node_says_the_law_it_was_drawn_from(spec: str) -> None:
    """q of a node is the draft's law with all earlier siblings taken out; for the first child it is the draft's law."""
    for seed in range(1, 30):
        tree, q = propose(spec, Seeded(seed))
        for node in range(-1, len(tree)):
            left = q(tree.words(node) if node >= 0 else ())
            for child in tree.children(node):
                assert tree.q[child] == pytest.approx(left / left.sum())
                left = left.index_fill(0, torch.tensor(tree.tokens[child]), 0.0)


@pytest.mark.parametrize(
    "spec", ["rsd-c:path=toy,widths=[1,1,1]", "rsd-s:path=toy,width=1,length=3", "iid:path=toy,width=1"]
)
def test_one_branch_is_a_chain(spec: str) -> None:
    """The same choices as ``model`` makes from the same random numbers, token for token."""
    for seed in range(1, 20):
        a, b = Seeded(seed), Seeded(seed)
        tree, _ = propose(spec, a)
        chain, _ = propose("model:path=toy,length=3", b)
        assert (tree.tokens, tree.parents) == (chain.tokens, chain.parents)
        assert a.noise() == b.noise()


def test_rsd_c_has_its_widths_and_stops_where_a_law_is_used_up() -> None:
    tree, _ = propose("rsd-c:path=toy,widths=[2,3,1]", Seeded(1))
    assert Counter(tree.depths) == {1: 2, 2: 6, 3: 6}
    tree, _ = propose("rsd-c:path=toy,widths=[9]", Seeded(1))
    assert sorted(tree.tokens) == [0, 1, 2, 3]


def test_rsd_c_draws_without_replacement_in_order() -> None:
    """P(first = x) = q(x), P(second = y | first = x) = q(y) / (1 - q(x)): the law of Gumbel-top-k, by enumeration."""
    _, q = propose("rsd-c:path=toy,widths=[2]", Seeded(1))
    law = enumerate_law(lambda rng: tuple(propose("rsd-c:path=toy,widths=[2]", rng)[0].tokens))
    chance = q(()).tolist()
    assert len(law) == 12
    for (first, second), weight in law.items():
        assert weight == pytest.approx(chance[first] * chance[second] / (1 - chance[first]))


def test_rsd_s_is_a_draw_without_replacement_of_whole_beginnings() -> None:
    """The level of length two in order of arrival: chi-square of the first and second of 16 against q and q / (1 - q)."""
    runs = 3000
    seen: Counter[tuple[Any, Any]] = Counter()
    for seed in range(1, runs + 1):
        tree, q = propose("rsd-s:path=toy,width=2,length=2", Seeded(seed), vocab=3)
        first, second = (node for node in range(len(tree)) if tree.depths[node] == 2)
        seen[tree.words(first), tree.words(second)] += 1
    chance = {(a, b): float(q(())[a] * q((a,))[b]) for a, b in itertools.product(range(3), repeat=2)}
    chi, cells = 0.0, 0
    for one, two in itertools.permutations(chance, 2):
        expected = runs * chance[one] * chance[two] / (1 - chance[one])
        if expected > 5:
            chi, cells = chi + (seen[one, two] - expected) ** 2 / expected, cells + 1
    assert cells > 12
    assert chi < cells + 3.1 * math.sqrt(2 * cells), f"{chi:.1f} at {cells} cells"


@pytest.mark.parametrize("seed", range(5))
def test_under_a_greedy_law_rsd_s_is_beam_search_and_dyspec_takes_the_likeliest_beginnings(seed: int) -> None:
    draft = ToyModel(4, seed=seed + 50).lm
    tree, q = propose("rsd-s:path=toy,width=3,length=3", Seeded(1), draft, greedy=True)

    @functools.cache
    def chance(path: tuple[int, ...]) -> float:
        return chance(path[:-1]) * float(q(path[:-1])[path[-1]]) if path else 1.0

    beams: list[tuple[int, ...]] = [()]
    for depth in (1, 2, 3):
        beams = sorted(((*beam, token) for beam in beams for token in range(4)), key=chance)[-3:]
        assert {tree.words(i) for i in range(len(tree)) if tree.depths[i] == depth} == set(beams)
    tree, _ = propose("dyspec:path=toy,nodes=7", Seeded(1), draft, greedy=True)
    every = [path for n in range(1, 8) for path in itertools.product(range(4), repeat=n)]
    assert {tree.words(i) for i in range(len(tree))} == set(sorted(every, key=chance)[-7:])
    assert tree.scheme is Scheme.CERTAIN


def test_dyspec_grows_a_chain_when_sure_and_a_bush_when_not() -> None:
    chain, _ = propose("dyspec:path=toy,nodes=6", Seeded(1), sure)
    assert chain.depths == [1, 2, 3, 4, 5, 6]
    for nodes in (1, 2, 3):
        bush, _ = propose(f"dyspec:path=toy,nodes={nodes}", Seeded(1), uniform)
        assert bush.depths == [1] * nodes
    short, _ = propose("dyspec:path=toy,nodes=6,length=2", Seeded(1), sure)
    assert max(short.depths) == 2


def asked_for(tree: TokenTree) -> list[float]:
    """What dyspec estimates of each node: that verification reaches its parent and refuses all its earlier siblings."""
    asked: list[float] = []
    for node, parent in enumerate(tree.parents):
        before = [i for i in tree.children(parent) if i < node]
        here = asked[parent] * chance_of(tree, parent) if parent != ROOT else 1.0
        asked.append(here * math.prod(1 - chance_of(tree, i) for i in before))
    return asked


def chance_of(tree: TokenTree, node: int) -> float:
    q = tree.q[node]
    assert q is not None
    return float(q[tree.tokens[node]])


def test_dyspec_takes_the_greatest_estimate_first() -> None:
    """What is estimated to be asked for never rises along the draws."""
    for seed in range(1, 20):
        tree, _ = propose("dyspec:path=toy,nodes=12", Seeded(seed))
        assert len(tree) == 12
        assert all(a >= b - 1e-9 for a, b in itertools.pairwise(asked_for(tree)))


def test_dyspec_with_a_threshold_draws_all_above_it_in_one_pass_a_level() -> None:
    """The paper's threshold variant: what it leaves out is estimated lower, and the draft model runs once a level."""
    depths = set()
    for seed in range(1, 30):
        toy = Told(vocab=4, seed=seed)
        drafter: Any = part("draft", "dyspec:path=toy,nodes=99,length=40,least=0.08").bind(toy)
        session = toy.session(PROMPT)
        drafter.begin(session, Laws((), greedy=False))
        passes = []
        after = drafter.after
        drafter.after = lambda *told, after=after, passes=passes: passes.append(told[2]) or after(*told)  # type: ignore[misc]
        tree = proposed(drafter, session, WIDE, Seeded(seed))
        assert len(passes) == max(tree.depths) < 40
        asked = asked_for(tree)
        assert min(asked) >= 0.08
        for node in range(-1, len(tree)):  # the next child of any node would be below it
            below = tree.children(node)
            here = asked[node] * chance_of(tree, node) if node != ROOT else 1.0
            assert here * math.prod(1 - chance_of(tree, i) for i in below) < 0.08 + 1e-9
        depths.add(max(tree.depths))
    assert len(depths) > 2


def test_dyspec_estimates_are_right_where_the_draft_is_the_target() -> None:
    """Each node is then accepted with chance R(y) if it is asked for: sum v R(y) nodes are accepted, by enumeration."""
    toy = Told(vocab=3)
    drafter: Any = part("draft", "dyspec:path=toy,nodes=4").bind(toy)
    laws = Laws((), greedy=False)

    def once(rng: Chooser) -> tuple[int, float]:
        session = toy.session(PROMPT)
        drafter.begin(session, laws)
        tree = proposed(drafter, session, WIDE, rng)
        rows = forward(session, tree)
        verdict = part("verify", "sample-and-match")(tree, laws(rows), rows, rng)  # type: ignore[operator]
        estimate = math.fsum(v * chance_of(tree, node) for node, v in enumerate(asked_for(tree)))
        return len(verdict.path), round(estimate, 12)

    law = enumerate_law(once)
    assert len({estimate for _, estimate in law}) > 3
    assert sum(w * taken for (taken, _), w in law.items()) == pytest.approx(sum(w * e for (_, e), w in law.items()))


def test_dyspec_learns_that_its_draft_is_too_sure() -> None:
    """A draft that gives 0.9 to what is right one time in four: the chain of its first guesses becomes a bush."""

    def too_sure(words: tuple[int, ...]) -> Tensor:
        return torch.tensor([0.1, 2.7, 0.1, 0.1], dtype=torch.float64).log()

    widest = {}
    for calibrate in (True, False):
        toy = Told(vocab=4, draft=too_sure)
        toy.lm = uniform
        draft: Any = part("draft", f"dyspec:path=toy,nodes=4,calibrate={calibrate}").bind(toy)
        parts = (Laws((), False), part("constrain", "none"), Seeded(1), Stop(max_new_tokens=150, context=4000), LOGITS)
        trees = [s.tree for _, s in together([speculate(toy.session(PROMPT), draft, Residual(), *parts)])]  # type: ignore[arg-type]
        widest[calibrate] = [len(tree.children(ROOT)) for tree in trees[-21:-1]]
    assert widest[False].count(1) > 10
    assert min(widest[True]) > 1


def test_dyspec_asks_the_draft_model_for_several_nodes_at_once() -> None:
    toy = Told(vocab=4)
    drafter: Any = part("draft", "dyspec:path=toy,nodes=12").bind(toy)
    drafter.begin(toy.session(PROMPT), Laws((), greedy=False))
    passes = []
    after = drafter.after
    drafter.after = lambda session, tree, nodes: passes.append(len(nodes)) or after(session, tree, nodes)
    proposed(drafter, toy.session(PROMPT), Budget(64, 64), Seeded(3))
    assert len(passes) < 12
    assert max(passes) > 1


# ---- specdec++ ---------------------------------------------------------------------------------------------------------


def lengths(drafter: Any, toy: ToyModel, steps: int, greedy: bool = False, seed: int = 1) -> list[int]:
    parts = (
        Laws((), greedy),
        part("constrain", "none"),
        Seeded(seed),
        Stop(max_new_tokens=steps, context=4000),
        LOGITS,
    )
    program = speculate(toy.session(PROMPT), drafter.bind(toy), Residual(), *parts)  # type: ignore[arg-type]
    return [len(step.tree) for _, step in together([program])]


def test_a_higher_threshold_drafts_longer() -> None:
    """From the least length at 0 to the greatest at 1."""
    means = []
    for threshold in (0.0, 0.3, 0.6, 0.9, 1.0):
        drafter = part("draft", {"specdec++": {"path": "toy", "max": 8, "threshold": threshold}})
        seen = lengths(drafter, Told(vocab=4, seed=3, draft=ToyModel(4, seed=13).lm), 120)[:-8]
        means.append(sum(seen) / len(seen))
    assert means == sorted(means)
    assert (means[0], means[-1]) == (2.0, 8.0)


def test_the_length_follows_what_was_seen() -> None:
    """A draft model that is the target drafts to the end; one that knows nothing falls to the least length."""
    toy = Told(vocab=4)
    good = lengths(part("draft", "specdec++:path=toy,max=12"), toy, 800)
    assert set(good[20:-8]) == {12}
    bad = lengths(
        part("draft", "specdec++:path=toy,max=12,threshold=0.5"), Told(vocab=4, draft=lambda w: -toy.lm(w)), 200
    )
    assert sum(bad[60:-4]) / len(bad[60:-4]) < 2.5
    greedy = lengths(part("draft", "specdec++:path=toy,max=12"), toy, 800, greedy=True)
    assert set(greedy[20:-8]) == {12}


def test_predicted_acceptance_comes_near_the_true_one() -> None:
    """In the bands of entropy that were seen often, the mean kept is the mean of sum min(p, q) there."""
    drafter: Any = part("draft", "specdec++:path=toy,max=4,threshold=1.0,weight=0.01")
    toy = Told(vocab=6, seed=5, draft=ToyModel(6, seed=15).lm)
    truth: dict[int, list[float]] = {}
    parts = (Laws((), False), part("constrain", "none"), Seeded(1), Stop(max_new_tokens=200, context=4000), LOGITS)
    bound = drafter.bind(toy)
    for _, step in together([speculate(toy.session(PROMPT), bound, Residual(), *parts)]):  # type: ignore[arg-type]
        for node, parent in enumerate(step.tree.parents):
            q = step.tree.q[node]
            p = step.p.row(step.rows.at(parent) or 0)
            assert q is not None
            assert p is not None
            truth.setdefault(band(q), []).append(float(torch.minimum(p, q).sum()))
    assert len(truth) > 2
    for which, values in truth.items():
        total, times = bound.lore.known[which,]
        assert times == len(values)
        assert total / times == pytest.approx(sum(values) / len(values), abs=0.02)
        assert bound.lore.rate((which,)) == pytest.approx(total / times, abs=0.02)


# ---- under the planner, and what is refused ----------------------------------------------------------------------------


COST = {1: 1.0, 2: 1.35, 3: 1.42, 4: 2.0, 64: 99.0}
"""A chain of two would pay and two siblings would not."""


class KnownCosts(Costs):
    """Costs that no toy's real seconds correct."""

    def correct(self, n: int, seconds: float, after: int | None = None) -> None:
        pass


def planned(draft: Any, plan: Auto, guides: Any = WARM) -> float:
    """How far the law of two tokens under a plan is from the definition."""
    toy = ToyModel(seed=3)
    built = build(recipe(draft, None, guides), toy)

    def once(rng: Chooser) -> tuple[int, ...]:
        session = toy.session(PROMPT)
        stop = Stop(max_new_tokens=LENGTH + 1)
        parts = (copy.deepcopy(built.draft), built.verify, built.laws, built.constrain, rng, stop, built.want)
        own = copy.deepcopy(plan)
        for _ in together([speculate(session, *parts, own)], JointPlan(own.costs)):
            if len(session.tokens) >= len(PROMPT) + LENGTH:
                break
        return tuple(session.tokens[len(PROMPT) :][:LENGTH])

    return variation(wanted(toy, built), enumerate_law(once))


@pytest.mark.usefixtures("still_clock")
def test_cutting_a_tree_by_what_was_drawn_would_be_wrong() -> None:
    """Where a node stands tells what was drawn: so the planner forwards such trees whole, and that is exact."""
    draft = part("draft", "dyspec:path=toy,nodes=2")
    assert planned(draft, Auto(KnownCosts(dict(COST)))) < 1e-9

    class Blind(Auto):
        def offer(self, tree: TokenTree, seconds: float) -> Offer:
            tree.settled = True
            return super().offer(tree, seconds)

    assert planned(draft, Blind(KnownCosts(dict(COST)))) > 1e-3


@pytest.mark.usefixtures("still_clock")
def test_a_planner_pauses_drafts_that_lose() -> None:
    for cost, fate in (({1: 1.0, 2: 9.0, 64: 99.0}, "paused"), ({1: 1.0, 2: 1.0, 64: 1.0}, "drafting")):
        toy = Told(vocab=4, seed=3, draft=ToyModel(4, seed=13).lm)
        plan = Auto(KnownCosts(dict(cost)))
        parts = (Laws((), False), part("constrain", "none"), Seeded(1), Stop(max_new_tokens=300, context=4000), LOGITS)
        draft: Any = part("draft", "dyspec:path=toy,nodes=3").bind(toy)
        steps = []
        program = speculate(toy.session(PROMPT), draft, Residual(), *parts, plan)  # type: ignore[arg-type]
        for _, step in together([program], JointPlan(plan.costs)):
            steps.append(len(step.tree) > 0)
        share = sum(steps[60:]) / len(steps[60:])
        assert share < 0.1 if fate == "paused" else share > 0.9


@pytest.mark.usefixtures("still_clock")
def test_a_law_with_few_tokens_left_shapes_the_tree_and_stays_exact() -> None:
    """Under top-p a node may have fewer children than its width, which depends on the node: so the tree is not settled."""
    draft = part("draft", "rsd-c:path=toy,widths=[1,2]")
    assert planned(draft, Auto(KnownCosts(dict(COST))), (TopP(0.8),)) < 1e-9


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("iid:width=0", "iid needs length >= 1 and width >= 1"),
        ("rsd-c:widths=[]", "rsd-c needs widths such as [2,2,1]"),
        ("rsd-c:widths=[2,0]", "rsd-c needs widths such as [2,2,1]"),
        ("rsd-s:length=0", "rsd-s needs length >= 1 and width >= 1"),
        ("dyspec:nodes=0", "dyspec needs nodes >= 1"),
        ("dyspec:least=1", "0 <= least < 1"),
        ("specdec++:threshold=1.5", "specdec++ needs 0 <= threshold <= 1"),
        ("specdec++:min=5,max=4", "1 <= min <= max"),
        ("specdec++:prior=0", "specdec++ needs 0 < prior <= 1"),
        ("model:path=toy,layers=[0]", "not both"),
    ],
)
def test_bad_parameters(spec: str, message: str) -> None:
    with pytest.raises(DecoderyError, match=re.escape(message)):
        part("draft", spec)


@pytest.mark.parametrize("draft", GROWN)
def test_a_draft_by_fewer_layers_needs_a_model_with_layers(draft: str) -> None:
    with pytest.raises(PartsClash, match=re.escape(f"draft part {draft!r} runs the target through fewer layers")):
        build(Recipe.of(draft), ToyModel(can=frozenset()))


@pytest.mark.parametrize("draft", GROWN)
def test_layers_that_are_none_of_the_model_are_named(draft: str) -> None:
    """A draft through layers that do not exist would run none at all, in silence."""
    for layers in ([4], [-1, 0], [0, 9]):
        wrong = [layer for layer in layers if layer not in range(4)]
        with pytest.raises(DecoderyError, match=re.escape(f"0 to 3, not {wrong}")):
            build(Recipe.of({draft: {"layers": layers}}), ToyModel(depth=4))
