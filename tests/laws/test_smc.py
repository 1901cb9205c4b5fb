"""Sequential Monte Carlo by its definition: what its weights say on average is the model's law given the constraint."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest

from decodery.constrain.check import Check
from decodery.constrain.choice import Choice
from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.errors import DecoderyError
from decodery.core.roles import Built, Constraint
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.walk import run
from decodery.laws.engine import PROMPT, Law, variation, wanted
from decodery.laws.search import law_of
from decodery.laws.specimens import TOYS, WARM
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe
from decodery.search.lib.resampling import METHODS
from decodery.search.smc import Smc


def last_step(smc: Smc, toy: ToyModel, constrain: Any, length: int, rng: Chooser) -> Step:
    return last_of(build(Recipe.of("none", None, (WARM,), constrain, smc), toy), toy, length, rng)


def last_of(built: Built, toy: ToyModel, length: int, rng: Chooser) -> Step:
    *_, last = steps(launch(built, toy.session(PROMPT), rng, Stop(toy.eos, max_new_tokens=length)))
    return last


def expected(smc: Smc, toy: ToyModel, constrain: Any, length: int) -> tuple[Law, float]:
    """What the candidates' scores and the evidence are on average, both on the linear scale."""
    built = build(Recipe.of("none", None, (WARM,), constrain, smc), toy)

    def once(rng: Chooser) -> tuple[Any, ...]:
        last = last_of(built, toy, length, rng)
        return tuple(last.candidates), last.log_evidence

    means: Law = defaultdict(float)
    evidence = 0.0
    for (found, log_evidence), chance in enumerate_law(once).items():
        for words, score in found:
            means[words] += chance * math.exp(score)
        evidence += chance * math.exp(log_evidence)
    return dict(means), evidence


def true(toy: ToyModel, constrain: Any, length: int, ended: bool = False) -> Law:
    """Of each allowed answer its probability under the guided law; ``ended``: without those that the limit cuts short."""
    free = build(Recipe.of("none", None, (WARM,), "none"), toy)
    constraint: Constraint = build(Recipe.of("none", None, (WARM,), constrain), toy).constrain
    law = {}
    for words, chance in wanted(toy, free, length).items():
        state = constraint.start(PROMPT)
        for word in words:
            state = None if state is None else run(constraint, state, [word], toy.eos)
        if state is not None and not (ended and words[-1] not in toy.eos):
            law[words] = chance
    return law


def close(got: Law, want: Law) -> bool:
    return all(abs(got.get(words, 0.0) - want.get(words, 0.0)) < 1e-9 for words in {*got, *want})


@pytest.mark.parametrize("name", METHODS)
def test_scores_and_evidence_are_unbiased(name: Any) -> None:
    """Two particles with AWRS, drawn anew after each token; the grammar has dead ends."""
    toy = ToyModel(2, seed=3)
    smc, constrain = Smc(particles=2, resample=name, threshold=1.0), "regex:ab|baa"
    got, evidence = expected(smc, toy, constrain, 2)
    want = true(toy, constrain, 2)
    assert close(got, want)
    assert evidence == pytest.approx(sum(want.values()), abs=1e-9)


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("name", METHODS)
def test_three_particles_with_masks_are_unbiased(name: Any, threshold: float) -> None:
    toy, constrain = TOYS["ends"], "regex:aab|bab"
    got, evidence = expected(Smc(particles=3, resample=name, threshold=threshold, masks=True), toy, constrain, 3)
    want = true(toy, constrain, 3)
    assert close(got, want)
    assert evidence == pytest.approx(sum(want.values()), abs=1e-9)


def test_more_accepted_draws_are_unbiased_too() -> None:
    toy, constrain = ToyModel(2, seed=3), "regex:ab|bb"
    assert close(expected(Smc(particles=1, accepts=4), toy, constrain, 2)[0], true(toy, constrain, 2))


def test_only_whole_answers_where_these_are_asked_for() -> None:
    toy, constrain = TOYS["ends"], "regex:(a|b)*"
    got, evidence = expected(Smc(particles=2, threshold=1.0, masks=True, whole=True), toy, constrain, 3)
    want = true(toy, constrain, 3, ended=True)
    assert close(got, want)
    assert evidence == pytest.approx(sum(want.values()), abs=1e-9)
    with pytest.raises(DecoderyError, match="smc:whole needs a model with an end-of-sequence token"):
        build(Recipe.of("none", None, (WARM,), "none", Smc(whole=True)), TOYS["open"])


def likes_b(text: bytes, ended: bool) -> float:
    return 0.8 * text.count(b"b") - (0.3 if ended else 0.0)


@pytest.mark.parametrize("name", METHODS)
def test_a_critic_weights_whole_answers_whatever_it_says_on_the_way(name: Any) -> None:
    toy, constrain = TOYS["ends"], "regex:(a|b)*"
    got, _ = expected(Smc(particles=2, resample=name, threshold=1.0, masks=True, critic=likes_b), toy, constrain, 2)
    letters = {words: bytes(97 + word for word in words if word not in toy.eos) for words in true(toy, constrain, 2)}
    want = {
        words: chance * math.exp(likes_b(letters[words], True)) for words, chance in true(toy, constrain, 2).items()
    }
    assert close(got, want)


def nothing(text: bytes, ended: bool) -> float:
    return math.nan


def failure(text: bytes, ended: bool) -> float:
    return 1 / (len(text) * ended)


def test_a_critic_that_gives_no_number_is_refused() -> None:
    for critic, said in ((nothing, "gave nan"), (failure, "ZeroDivisionError")):
        with pytest.raises(DecoderyError, match=said):
            last_step(Smc(critic=critic), TOYS["ends"], "none", 2, Seeded(1))


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
@pytest.mark.parametrize("constrain", ["regex:(a|ba)*", Check(lambda text: b"aa" not in text)], ids=["regex", "check"])
def test_one_particle_is_constrained_sampling_without_a_mask(toy: ToyModel, constrain: Any) -> None:
    built = build(Recipe.of("none", None, (WARM,), constrain), toy)
    got = law_of(Smc(particles=1), toy, (WARM,), constrain)
    assert variation(got, wanted(toy, built, 2)) < 1e-9


def divergence(p: Law, q: Law) -> float:
    return sum(chance * math.log(chance / q[words]) for words, chance in p.items() if chance > 0)


def test_many_particles_undo_the_bias_of_masks() -> None:
    """A grammar of one short text and one with a long tail that the model hardly writes."""
    toy, grammar, length = ToyModel(seed=2, eos=frozenset({2})), Choice(("ab", "baaaa")), 6
    law = true(toy, grammar, length, ended=True)
    want = {words: chance / sum(law.values()) for words, chance in law.items()}
    local = wanted(toy, build(Recipe.of("none", None, (WARM,), grammar), toy), length)
    assert divergence(want, local) > 0.1
    runs, posterior = 60, defaultdict[Any, float](float)
    for seed in range(runs):
        last = last_step(Smc(particles=64), toy, grammar, length, Seeded(seed))
        assert last.log_evidence is not None
        for words, score in last.candidates:
            posterior[words] += math.exp(score - last.log_evidence) / runs
    assert divergence(want, posterior) < 0.02


def test_nothing_allowed_is_a_dead_end() -> None:
    toy = TOYS["ends"]
    built = build(
        Recipe.of("none", None, (WARM,), Check(lambda text, ended: text in (b"", b"a") and not ended), Smc()), toy
    )
    session, stop = toy.session(PROMPT), Stop(toy.eos, max_new_tokens=4)
    *_, last = steps(launch(built, session, Seeded(1), stop))
    assert (stop.reason, last.tokens, last.candidates, last.log_evidence) == ("dead_end", [], [], -math.inf)
    assert session.tokens == list(PROMPT)


def test_tokens_asked_about_are_counted() -> None:
    toy, calls = TOYS["open"], 0
    asked: list[bytes] = []

    def note(text: bytes) -> bool:
        asked.append(text)
        return True

    built = build(Recipe.of("none", None, (WARM,), Check(note), Smc(particles=3)), toy)
    asked.clear()
    for step in steps(launch(built, toy.session(PROMPT), Seeded(1), Stop(toy.eos, max_new_tokens=3))):
        calls += step.calls["checks"]
    assert calls == len(asked) - 1 > 0  # one for the beginning
