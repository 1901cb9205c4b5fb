"""Drafters that read the model's own guesses about places not reached yet: ``speculative-jacobi`` and ``lookahead``."""

from __future__ import annotations

import copy
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import decodery
from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.errors import DecoderyError
from decodery.core.law import Law
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Rows, Tensor
from decodery.draft.lookahead import GUESS, Lookahead
from decodery.draft.speculative_jacobi import Guess, SpeculativeJacobi
from decodery.guide.temperature import Temperature
from decodery.inspect.compare import TIE
from decodery.model.arena import Arena
from decodery.model.toy import ToyArena, ToyModel, table
from decodery.model.turn import forward
from decodery.plan.planner import OFF, Fixed, Plan
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.run.spec import part
from decodery.verify.residual import Residual

from ..laws.exact import PROMPT, recipe, variation, wanted
from ..running import speculate, together

WARM = Temperature(0.9)


@dataclass
class Roomy(ToyModel):
    """A toy with room for long texts."""

    def arena(self) -> Arena:
        return ToyArena(self.lm, self.lm, context=4000)


def toy(lm: Any, vocab: int) -> ToyModel:
    model = Roomy(vocab=vocab)
    model.lm = lm
    return model


def decoded(draft: Drafter, model: ToyModel, length: int, prompt: Sequence[int] = (0,), **options: Any) -> list[Step]:
    """The steps of a decoding; greedy unless ``guides`` sample."""
    built = build(recipe(draft, options.get("verify", Residual()), options.get("guides", ())), model)
    session, stop = model.session(prompt), Stop(max_new_tokens=length)
    parts = (built.draft, built.verify, built.laws, built.constrain, Seeded(7), stop, built.want)
    return [step for _, step in together([speculate(session, *parts, options.get("plan", OFF))])]


def answer(steps: list[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


# ---- speculative-jacobi ------------------------------------------------------------------------------------------------


def enumerated(draft: Drafter, length: int, verify: Any = None, plan: Plan = OFF, slack: int = 0) -> Any:
    """Every branch of a decoding on the toy: how far its law is from the definition's, and the mean number of passes."""
    model = ToyModel()
    built = build(recipe(draft, verify or Residual(), [WARM]), model)
    passes: Counter[int] = Counter()

    def once(rng: Chooser) -> tuple[tuple[int, ...], int]:
        session, stop = model.session(PROMPT), Stop(max_new_tokens=length + slack)
        parts = (copy.deepcopy(built.draft), built.verify, built.laws, built.constrain)
        n = 0
        for _ in together([speculate(session, *parts, rng, stop, built.want, plan)]):
            n += 1
            if len(session.tokens) >= len(PROMPT) + length:
                break
        return tuple(session.tokens[len(PROMPT) :][:length]), n

    law: Counter[tuple[int, ...]] = Counter()
    for (tokens, n), weight in enumerate_law(once).items():
        law[tokens] += weight
        passes[n] += weight
    assert sum(law.values()) == pytest.approx(1.0)
    mean = sum(n * weight for n, weight in passes.items())
    return variation(law, wanted(model, built, length)), mean


@dataclass
class AsIfNow(Residual):
    """The mistake that the paper warns of: a guess is weighed by the law at its place now, not by the one it came from."""

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        for node, q in enumerate(tree.q):
            if q is not None and q.max() < 1 and (row := rows.at(tree.parents[node])) is not None:
                tree.q[node] = p.row(row)
        return super().__call__(tree, p, rows, rng)


@dataclass
class OffByOne(SpeculativeJacobi):
    """Laws that did not move with the window."""

    def observe(self, session: Any, step: Step, rng: Chooser) -> None:
        super().observe(session, step, rng)
        if len(step.tokens) == 1 and len(self._guesses) > 1:
            laws = [q for _, q in self._guesses]
            tokens = [token for token, _ in self._guesses]
            self._guesses = [Guess(t, q) for t, q in zip(tokens, [laws[1], laws[0], *laws[2:]], strict=True)]


@dataclass
class Forgetful(SpeculativeJacobi):
    """Redrawn guesses offered as if they were certain: right, and worse."""

    def observe(self, session: Any, step: Step, rng: Chooser) -> None:
        super().observe(session, step, rng)
        self._guesses = [Guess(token) for token, _ in self._guesses]


def test_sjd_is_exact_over_several_windows_and_saves_passes() -> None:
    """The card's table: V=3, three tokens, a window of 3; every branch instead of 40,000 draws."""
    distance, passes = enumerated(SpeculativeJacobi(3), 3)
    assert distance < 1e-12
    assert passes < 2.5  # plain decoding: 3


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("fill", ["repeat", "random"])
def test_sjd_is_exact_where_a_pass_ends_inside_the_window(nodes: int, fill: str) -> None:
    """Guesses that were cut off keep their law, are moved with the window, and come true or not as it says."""
    length = 4 if fill == "repeat" and nodes == 1 else 3
    draft = SpeculativeJacobi(2 if fill == "random" else 3, fill)

    class Cut(Plan):
        def cut(self, tree: TokenTree) -> TokenTree:
            return tree.only(range(min(nodes, len(tree))))

    for plan in (Cut(), Fixed(nodes)):
        assert enumerated(draft, length, plan=plan, slack=1 if fill == "repeat" else 0)[0] < 1e-12


def test_sjd_notices_a_wrong_account_of_q() -> None:
    """And a guess that forgot its law is right but accepted less often."""
    assert enumerated(SpeculativeJacobi(3), 3, AsIfNow())[0] > 1e-2
    assert enumerated(OffByOne(3), 3, slack=1)[0] > 1e-3
    exact, slower = enumerated(Forgetful(3), 3)
    assert exact < 1e-12
    assert slower > enumerated(SpeculativeJacobi(3), 3)[1] + 0.05


@pytest.mark.parametrize("fill", ["repeat", "random"])
def test_sjd_where_context_does_not_matter_refuses_fillers_only(fill: str) -> None:
    """p is the same everywhere, so a redrawn guess is always accepted."""
    model = toy(lambda _: torch.linspace(0, 2, 6), 6)
    steps = decoded(SpeculativeJacobi(5, fill), model, 400, guides=[WARM])
    fates: Counter[tuple[int, bool]] = Counter()
    for step in steps:
        reached = len(step.verdict.path) + (len(step.verdict.path) < len(step.tree))
        fates.update((step.tree.kinds[node], node < len(step.verdict.path)) for node in range(reached))
    assert fates[1, True] > 100
    assert fates[1, False] == 0
    assert fates[0, True]
    assert fates[0, False]


@pytest.mark.parametrize("window", [1, 4, 16])
def test_sjd_greedy_is_greedy_in_no_more_passes(window: int) -> None:
    model = toy(table(6, 3, sharpness=4.0), 6)
    plain = answer(decoded(part("draft", "none"), model, 60))
    steps = decoded(SpeculativeJacobi(window), model, 60)
    assert answer(steps) == plain
    assert len(steps) <= 60
    assert all(q is None for step in steps for q in step.tree.q)


def test_sjd_keeps_each_law_beside_its_guess() -> None:
    """Redrawn where the pass came to, from the law of the row there; untouched beyond; moved by what was committed."""
    model = toy(table(5, 2), 5)
    draft = SpeculativeJacobi(6).bind(model)
    session, laws = model.session([0, 1]), Laws((), greedy=False)
    draft.begin(session, laws)
    draft._guesses = [Guess(i % 5, torch.full((5,), 0.2)) for i in range(6)]
    before, whole = list(draft._guesses), draft.propose(session, Budget(9, 9), Seeded(0))
    tree = whole.only(range(4))
    rows = forward(session, tree)
    step = Step(tree, rows, laws(rows), Verdict((0,), (3,)), [0, 3])
    session.commit(step.tokens)
    draft.observe(session, step, Seeded(1))
    assert len(draft._guesses) == 4
    for guess, row in zip(draft._guesses, (2, 3, 4), strict=False):
        assert torch.equal(guess.q, step.p.row(row))  # type: ignore[arg-type]
    assert draft._guesses[3] is before[5]


# ---- lookahead ---------------------------------------------------------------------------------------------------------


def cycle(n: int, vocab: int) -> Any:
    """A model that repeats 0, 1, ..., n - 1."""

    def logits(words: tuple[int, ...]) -> Tensor:
        return torch.eye(vocab, dtype=torch.float64)[(words[-1] + 1) % n] * 9

    return logits


def test_lookahead_window_is_the_papers() -> None:
    """Level j of column i stands i + j places behind the text and sees the oldest tokens up to its column's, then the
    younger ones of its own column."""
    draft = Lookahead(window=4, n=4, prompt=False)
    session = ToyModel(vocab=8).session([0])
    draft.begin(session, Laws())
    draft._columns = [[10 * i + j for j in range(3)] for i in range(4)]
    tree = draft.propose(session, Budget(99, 99), Seeded(0))
    assert len(tree) == 4 * 3 - 1  # the first column's oldest token is the text's last one
    for i in range(4):
        for j in range(3):
            if i + j:
                node = next(node for node in range(len(tree)) if tree.tokens[node] == 10 * i + j)
                assert tree.words(node) == (*range(10, 10 * i + 1, 10), *range(10 * i + 1, 10 * i + j + 1))
                assert tree.depths[node] == i + j


@pytest.mark.parametrize("n", [2, 3, 5])
def test_lookahead_learns_what_the_model_said(n: int) -> None:
    """Each new n-gram ends with the model's likeliest token after its beginning, in a context that was forwarded."""
    model = toy(table(7, 5, sharpness=3.0), 7)
    learnt: list[tuple[int, ...]] = []

    class Spy(Lookahead):
        def _learn(self, ngram: list[int]) -> None:
            learnt.append(tuple(ngram))
            super()._learn(ngram)

        def observe(self, session: Any, step: Step, rng: Chooser) -> None:
            learnt.clear()
            super().observe(session, step, rng)
            ends = {
                (*step.rows.words(row)[-n + 1 :], int(step.rows.logits[row].argmax())) for row in range(len(step.rows))
            }
            assert set(learnt) <= ends
            seen.append(len(learnt))

    seen: list[int] = []
    steps = decoded(Spy(window=3, n=n, prompt=False), model, 80, [0, 1, 2])
    assert sum(seen) > len(steps)
    assert answer(steps) == answer(decoded(part("draft", "none"), model, 80, [0, 1, 2]))


def test_lookahead_second_time_round_takes_a_whole_ngram() -> None:
    """On a cycle: n - 1 pooled tokens and the verifier's own in each step, from nothing but the model's answers."""
    steps = decoded(Lookahead(window=6, n=4, prompt=False), toy(cycle(24, 24), 24), 200)
    assert answer(steps) == [(i + 1) % 24 for i in range(200)]
    assert min(len(step.tokens) for step in steps[30:-2]) >= 4
    assert all(step.tree.kinds[node] == GUESS for step in steps[30:-2] for node in step.verdict.path[:3])


def test_lookahead_pool_is_bounded_and_keeps_the_latest() -> None:
    draft = Lookahead(n=3, guesses=2, pool=5, prompt=False)
    draft.begin(ToyModel().session([0]), Laws())
    for first in range(9):
        for second in (1, 2, 3, 2):
            draft._learn([first, second, 9])
    assert list(draft._pool) == [4, 5, 6, 7, 8]
    assert set(map(tuple, draft._pool.values())) == {((3, 9), (2, 9))}
    draft._learn([4, 5, 6])
    draft._learn([99, 5, 6])
    assert list(draft._pool) == [6, 7, 8, 4, 99]
    long = decoded(Lookahead(window=6, n=3, guesses=2, pool=3), toy(table(40, 1), 40), 300, range(40))
    assert max(len(step.tree.children(-1)) for step in long) <= 2 + 2  # two n-grams and two beginnings of columns


def test_lookahead_pool_takes_the_bytes_it_says() -> None:
    draft = Lookahead(n=4, guesses=4, pool=500, prompt=False)
    draft.begin(ToyModel().session([0]), Laws())
    tracemalloc.start()
    try:
        for i in range(12_000):
            draft._learn([1000 + i // 8, *(2000 + i * k for k in (1, 2, 3))])
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert sum(map(len, draft._pool.values())) == 2000
    assert size < 250 * 2000


def test_lookahead_sends_whole_columns_and_leaves_the_others_as_they_are() -> None:
    model = toy(table(50, 4), 50)
    draft = Lookahead(window=4, n=4, prompt=False)
    session, laws = model.session([0]), Laws()
    draft.begin(session, laws)
    for budget, sent in ((Budget(99, 99), 4), (Budget(7, 99), 2), (Budget(99, 3), 2), (Budget(1, 1), 0)):
        draft._pool = {}
        draft._columns = [[10 * i + j for j in range(3)] for i in range(4)]
        tree = draft.propose(session, budget, Seeded(0))
        assert len(tree) == max(0, 3 * sent - 1)
        rows = forward(session, tree)
        step = Step(tree, rows, laws(rows), Verdict(()), [int(rows.logits[0].argmax())])
        draft.observe(session, step, Seeded(0))
        assert [column[1] - column[0] == 1 and column[0] % 10 == 1 for column in draft._columns[:sent]] == [True] * sent
        assert [column[0] for column in draft._columns[sent:]] == [10 * i for i in range(sent, 4)]


def test_lookahead_reads_the_prompt_if_told_to() -> None:
    session = ToyModel(vocab=8).session([1, 2, 3, 4, 1])
    for prompt, tokens in ((True, {2, 3}), (False, set())):
        draft = Lookahead(window=1, n=3, prompt=prompt)
        draft.begin(session, Laws())
        assert set(draft.propose(session, Budget(9, 9), Seeded(0)).tokens) == tokens


# ---- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("speculative-jacobi:window=0", "window >= 1"),
        ("speculative-jacobi:fill=left", "repeat or random"),
        ("lookahead:window=0", "window >= 1"),
        ("lookahead:n=1", "n >= 2"),
        ("lookahead:guesses=0", "guesses >= 1"),
        ("lookahead:pool=0", "pool >= 1"),
    ],
)
def test_bad_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(DecoderyError, match=message):
        part("draft", spec)


def test_both_work_in_a_mix_where_decoding_is_greedy() -> None:
    model = toy(table(6, 3, sharpness=4.0), 6)
    mixed = Recipe.of("mix(speculative-jacobi,lookahead)").draft
    assert answer(decoded(mixed, model, 40)) == answer(decoded(part("draft", "none"), model, 40))


@pytest.mark.real
@pytest.mark.xdist_group("real")
@pytest.mark.parametrize("draft", ["speculative-jacobi", "lookahead"])
def test_greedy_on_a_real_model(draft: str, smollm2: Any) -> None:
    prompt = [{"role": "user", "content": "List ten countries and their capitals."}]
    plain = decodery.decode(smollm2, prompt, max_new_tokens=32, logprobs=2)
    output = decodery.decode(smollm2, prompt, draft=draft, max_new_tokens=32)
    parted = next((i for i, (a, b) in enumerate(zip(output.tokens, plain.tokens, strict=True)) if a != b), None)
    if parted is not None:
        (_, best), (_, second) = plain.logprobs[parted].top
        assert best - second < TIE
    assert 0 < output.stats.accepted < output.stats.drafted
    assert output.stats.forwards < output.stats.tokens
