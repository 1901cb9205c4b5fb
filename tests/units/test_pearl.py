"""PEARL: what a round commits, that threads change nothing, and that none outlives its request."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic, sleep
from typing import Any

import pytest
import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.law import Law
from decodery.core.part import Program
from decodery.core.roles import Drafter, Verifier
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Tensor
from decodery.draft.model import ModelDraft
from decodery.draft.pearl import Pearl
from decodery.guide.temperature import Temperature
from decodery.model.arena import Answer, Arena, Feed
from decodery.model.toy import LanguageModel, ToyArena, ToyModel, table
from decodery.plan.costs import Costs
from decodery.plan.planner import OFF, Auto, Fixed, JointPlan, Plan
from decodery.run.build import build
from decodery.run.spec import part

from ..laws.exact import PROMPT, Count, produced, recipe, variation, wanted
from ..running import speculate, together

WARM = (Temperature(0.9),)
VOCAB = 5
TARGET = table(VOCAB, seed=1, order=4)
OTHER = table(VOCAB, seed=11, order=6)


def near(words: tuple[int, ...]) -> Tensor:
    """The target with some noise: often right."""
    return TARGET(words) + 0.5 * OTHER(words)


def wrong(words: tuple[int, ...]) -> Tensor:
    """Sure of the target's least likely token."""
    return torch.eye(VOCAB, dtype=torch.float64)[TARGET(words).argmin()] * 900


@dataclass
class Pair(ToyModel):
    """A toy target whose draft model is the one given; ``before`` is called before each forward of the target."""

    vocab: int = VOCAB
    order: int = 4
    draft: LanguageModel = near
    before: Callable[[], None] = lambda: None

    def arena(self, lanes: int = 1) -> Arena:
        return Watched(self.lm, self.lm, 4000, self.before)

    def companion(self, spec: object) -> ToyModel:
        other = Pair(self.vocab)
        other.lm = self.draft
        return other


class Watched(ToyArena):
    def __init__(self, lm: LanguageModel, shallow: LanguageModel, context: int, before: Callable[[], None]) -> None:
        super().__init__(lm, shallow, context)
        self.before = before

    def _compute(self, feed: Feed) -> Answer:
        self.before()
        return super()._compute(feed)


def program(toy: Pair, n: int, guides: Any = (), seed: int = 0, plan: Plan = OFF, **options: Any) -> Program:
    return program_of(Pearl(path="toy", **options), toy, n, guides, seed, plan)


def program_of(draft: Drafter, toy: Pair, n: int, guides: Any = (), seed: int = 0, plan: Plan = OFF) -> Program:
    built = build(recipe(draft, None, guides), toy)
    parts = (copy.copy(built.draft), built.verify, built.laws, built.constrain)
    return speculate(toy.session(PROMPT), *parts, Seeded(seed), Stop(max_new_tokens=n), built.want, plan)


def steps(toy: Pair, n: int, *args: Any, **options: Any) -> list[Step]:
    plan = options.get("plan")
    joint = JointPlan(plan.costs) if isinstance(plan, Auto) else None
    return [step for _, step in together([program(toy, n, *args, **options)], joint)]


def steps_of(draft: Drafter, toy: Pair, n: int) -> list[Step]:
    return [step for _, step in together([program_of(draft, toy, n)])]


def tokens(found: list[Step]) -> list[int]:
    return [token for step in found for token in step.tokens]


def plain(n: int) -> list[int]:
    words = list(PROMPT)
    for _ in range(n):
        words.append(int(TARGET(tuple(words)).argmax()))
    return words[len(PROMPT) :]


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pearl"]


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    assert not alive()


# ---- rounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("gamma", [2, 3, 4, 7])
def test_a_draft_equal_to_the_target_is_never_taken_back(gamma: int, overlap: bool) -> None:
    """One round opens with a single token, each further one confirms gamma: (n - 1) / gamma + 1 rounds."""
    n = 1 + 5 * gamma
    found = steps(Pair(draft=TARGET), n, gamma=gamma, overlap=overlap)
    assert [len(step.tokens) for step in found] == [1, *[gamma] * 5]
    assert all(len(step.verdict.path) == len(step.tree) for step in found)
    assert tokens(found) == plain(n)


def test_where_tokens_are_sampled_an_equal_draft_loses_at_the_joints_only() -> None:
    """All of a block but its first token passes the chain rule; that one is kept as often as the verifier draws it."""
    kept = opened = 0
    for seed in range(30):
        found = steps(Pair(draft=TARGET), 40, WARM, seed, gamma=4)
        assert all(len(step.verdict.path) == len(step.tree) for step in found)
        for step, after in pairwise(found[:-1]):
            p = step.p.row(step.rows.at(step.verdict.path[-1] if step.verdict.path else ROOT) or 0)
            assert p is not None
            assert (step.tokens[-1] == int(p.argmax())) == (len(after.tree) > 0)
            kept, opened = kept + (len(after.tree) > 0), opened + 1
    assert 0.3 < kept / opened < 0.95


@pytest.mark.parametrize("guides", [(), WARM])
def test_a_draft_always_wrong_costs_no_more_than_plain_decoding(guides: Any) -> None:
    """Each round commits exactly one token, and the target is never given a draft."""
    n = 30
    found = steps(Pair(draft=wrong), n, guides, gamma=4)
    if not guides:
        assert [(len(step.tokens), len(step.tree)) for step in found] == [(1, 0)] * n
        assert tokens(found) == plain(n)
    else:
        assert len(tokens(found)) == n
        assert all(not step.verdict.path for step in found)


def test_the_length_adapts() -> None:
    """What is accepted in a row, no round lost between, goes far beyond gamma; and rounds are lost as well."""
    found = steps(Pair(draft=near), 400, gamma=3)
    runs, run = [], 0
    for step in found:
        run = run + len(step.tokens) if len(step.verdict.path) == len(step.tree) > 0 else 0
        runs.append(run)
    assert max(runs) > 3 * 3
    assert any(len(step.verdict.path) < len(step.tree) for step in found)
    assert any(not step.tree.tokens for step in found[1:])
    assert tokens(found) == plain(400)


@pytest.mark.parametrize("gamma", [2, 3, 4])
@pytest.mark.parametrize("noise", [0.2, 0.5, 0.9])
def test_more_is_accepted_in_a_row_than_by_taking_turns(gamma: int, noise: float) -> None:
    """Tokens committed up to and with a correction: where drafter and target take turns, gamma and one more end them."""

    def draft(words: tuple[int, ...]) -> Tensor:
        return TARGET(words) + noise * OTHER(words)

    means = []
    for drafter in (Pearl(path="toy", gamma=gamma), ModelDraft(path="toy", length=gamma)):
        found = steps_of(drafter, Pair(draft=draft), 400)
        assert tokens(found) == plain(400)
        # Taking turns ends a run with each step; here it goes on while the next block stands.
        joined = sum(len(after.tree) > 0 for after in found[1:]) if isinstance(drafter, Pearl) else 0
        means.append(400 / (len(found) - joined))
    assert means[0] > means[1]


# ---- threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guides", [(), WARM])
def test_threads_change_nothing(guides: Any) -> None:
    """Token for token, tree for tree, whoever is late: the target, the draft, or neither."""
    for seed in range(6):
        late = [lambda: None, lambda: sleep(0.001)]
        runs = []
        for overlap, before, slow in ((False, 0, 0), (True, 0, 0), (True, 1, 0), (True, 0, 1)):

            def draft(words: tuple[int, ...], wait: Callable[[], None] = late[slow]) -> Tensor:
                wait()
                return near(words)

            found = steps(Pair(draft=draft, before=late[before]), 40, guides, seed, gamma=3, overlap=overlap)
            runs.append([(step.tree.tokens, step.tokens) for step in found])
        assert all(run == runs[0] for run in runs)


def test_the_draft_is_written_while_the_target_runs() -> None:
    """The target's first forward ends only when the draft has written three tokens: without overlap it never would."""
    written, target = threading.Event(), threading.get_ident()

    def draft(words: tuple[int, ...]) -> Tensor:
        assert threading.get_ident() != target
        if len(words) == len(PROMPT) + 3:
            written.set()
        return TARGET(words)

    found = steps(Pair(draft=draft, before=lambda: _true(written.wait(10))), 9, gamma=4)
    assert tokens(found) == plain(9)


def test_what_is_raised_in_the_thread_reaches_the_caller() -> None:
    calls: list[int] = []

    def draft(words: tuple[int, ...]) -> Tensor:
        calls.append(len(words))
        if len(calls) == 6:
            raise DecoderyError("the draft broke")
        return TARGET(words)

    for overlap in (True, False):
        calls.clear()
        with pytest.raises(DecoderyError, match="the draft broke"):
            steps(Pair(draft=draft), 20, gamma=4, overlap=overlap)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_no_thread(error: type[BaseException]) -> None:
    """The target's pass is interrupted while the draft has seconds of work left: it ends after the token at hand."""
    calls: list[int] = []

    def draft(words: tuple[int, ...]) -> Tensor:
        calls.append(len(words))
        sleep(0.02)
        return TARGET(words)

    def before() -> None:
        sleep(0.05)
        raise error

    with pytest.raises(error):
        steps(Pair(draft=draft, before=before), 1000, gamma=200)
    _gone(calls)


def test_a_request_ended_early_leaves_no_thread() -> None:
    """Its text is read no further while a row of its batch has a thread at work."""
    calls: list[int] = []

    def draft(words: tuple[int, ...]) -> Tensor:
        calls.append(len(words))
        sleep(0.02)
        return TARGET(words)

    toy = Pair(draft=draft)
    running = together([program(toy, 1000, gamma=4), program(toy, 1000, gamma=200)])
    for i, _ in running:
        if i == 0 and alive():
            break
    running.close()  # type: ignore[attr-defined]
    del running, _
    _gone(calls)


def _gone(calls: list[int], limit: int = 20) -> None:
    """The thread ends soon, far from the end of its block."""
    gc.collect()
    start = monotonic()
    while alive():
        assert monotonic() - start < 2
        sleep(0.01)
    assert len(calls) < limit


def _true(value: bool) -> None:
    assert value


# ---- laws beyond the first two tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", ["residual", "block", "spectr"])
@pytest.mark.parametrize("overlap", [True, False])
def test_the_law_of_whole_rounds(verify: str, overlap: bool) -> None:
    """Four tokens: blocks that follow blocks, also behind refusals."""
    toy = ToyModel(vocab=2, seed=5)
    built = build(recipe(Pearl(path="toy", gamma=3, overlap=overlap), part("verify", verify), WARM), toy)
    count = Count()
    assert variation(wanted(toy, built, 4), produced(toy, built, count, 4)) < 1e-9
    assert count.accepted
    assert count.refused


@pytest.mark.parametrize("gamma", [2, 3])
def test_the_law_of_three_tokens_of_three_kinds(gamma: int) -> None:
    toy, count = ToyModel(seed=5), Count()
    built = build(recipe(Pearl(path="toy", gamma=gamma), None, WARM), toy)
    assert variation(wanted(toy, built, 3), produced(toy, built, count, 3)) < 1e-9
    assert count.accepted
    assert count.refused


class Stubborn(Verifier):
    """Refuses all drafts and draws a token that may be one of them."""

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        law = p.row(0)
        assert law is not None
        return Verdict((), (rng.pick(law),))


def test_drafts_that_were_judged_are_not_offered_again() -> None:
    """Not even where the verifier's own token is the first of them."""
    toy = Pair(draft=TARGET)
    built = build(recipe(Pearl(path="toy"), Stubborn(), WARM), toy)
    parts = (copy.copy(built.draft), built.verify, built.laws, built.constrain)
    running = speculate(toy.session(PROMPT), *parts, Seeded(1), Stop(max_new_tokens=60), built.want)
    found = [step for _, step in together([running])]
    agreed = [after for step, after in pairwise(found) if step.tree.tokens[:1] == step.tokens]
    assert len(agreed) > 5
    assert not any(after.tree.tokens for after in agreed)


class KnownCosts(Costs):
    """Costs that no toy's real seconds correct."""

    def correct(self, n: int, seconds: float, after: int | None = None) -> None:
        pass


@pytest.mark.parametrize("plan", [Fixed(1), Fixed(2), Auto(KnownCosts({1: 1.0, 2: 1.2, 3: 1.4, 64: 99.0}))])
def test_a_plan_that_cuts_leaves_the_same_text(plan: Plan) -> None:
    found = steps(Pair(draft=near), 200, gamma=4, plan=copy.deepcopy(plan))
    assert tokens(found) == plain(200)


class Waits(Auto):
    """A plan under which each proposal takes 0.3 of a forward."""

    def observe(self, step: Step) -> None:
        step.seconds["draft"] = 0.3 * self._asked
        super().observe(step)


def test_a_pass_that_opens_a_block_is_no_loss_to_a_plan() -> None:
    """Blocks pay though many passes have none to judge: none is given up. Where they never pay, they hardly cost."""
    costs = {1: 1.0, 4: 1.1, 64: 9.0}
    free = steps(Pair(draft=near), 400, gamma=4)
    found = steps(Pair(draft=near), 400, gamma=4, plan=Waits(KnownCosts(dict(costs))))
    assert sum(not step.tree.tokens for step in free) > 50
    assert [step.tokens for step in found] == [step.tokens for step in free]
    assert sum(1.4 if step.tree.tokens else 1.3 for step in found) < 0.6 * 400
    plan = Waits(KnownCosts(dict(costs)))
    asked = [step.seconds["draft"] > 0 for step in steps(Pair(draft=wrong), 1000, gamma=4, plan=plan)]
    assert all(asked[:5])
    assert 20 <= sum(asked) <= 70
    assert 10 <= sum(asked[500:]) <= 20


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_plan_that_cuts_leaves_the_law(nodes: int) -> None:
    """The rest of a block, and the guess that opens the next, are then drafts like any other."""
    toy = ToyModel(vocab=2, seed=5)
    built = build(recipe(Pearl(path="toy", gamma=3), None, WARM), toy)

    def once(rng: Chooser) -> tuple[int, ...]:
        session, stop = toy.session(PROMPT), Stop(max_new_tokens=5)
        parts = (copy.deepcopy(built.draft), built.verify, built.laws, built.constrain, rng, stop, built.want)
        for _ in together([speculate(session, *parts, Fixed(nodes))]):
            pass
        return tuple(session.tokens[len(PROMPT) :])

    assert variation(wanted(toy, built, 5), enumerate_law(once)) < 1e-9


# ---- what is refused ---------------------------------------------------------------------------------------------------


def test_a_model_of_its_own_is_needed() -> None:
    with pytest.raises(PartsClash, match="give path="):
        build(recipe(Pearl()), ToyModel())

    class Selfish(ToyModel):
        def companion(self, spec: object) -> ToyModel:
            return self

    with pytest.raises(PartsClash, match="load it a second time"):
        build(recipe(Pearl(path="itself")), Selfish())
    with pytest.raises(DecoderyError, match="gamma >= 2"):
        part("draft", "pearl:path=toy,gamma=1")
