"""ASAp by its definition: what the trie says of a grammar's future, and the law of the next sample."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from decodery.constrain.choice import Choice
from decodery.core.chooser import Seeded
from decodery.core.roles import Built
from decodery.core.stop import Stop
from decodery.core.walk import masks, run
from decodery.guide.temperature import Temperature
from decodery.laws.engine import PROMPT, Law, definition_rows, variation, wanted
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe
from decodery.search.asap import Asap
from decodery.search.lib.future import Aligned, Future

SOFT = Temperature(2.0)
TOY = ToyModel(seed=10, eos=frozenset({2}))
LENGTH = 6
FIVE = ("aaaaa", *("b" + "".join("ab"[i >> k & 1] for k in range(4)) for i in range(16)))
"""The paper's first grammar: of the strings of five letters one that begins with a, and all that begin with b."""


def made(draft: str = "none", constrain: Any = None) -> Built:
    return build(Recipe.of(draft, None, (SOFT,), constrain or Choice(FIVE)), TOY)


def sample(built: Built, future: Future, seed: int, length: int = LENGTH) -> list[int]:
    """One more answer, from which the trie learns."""
    aligned = replace(built, laws=Aligned(built.laws.guides, built.laws.greedy, {}, future=future))
    tokens: list[int] = []
    for step in steps(launch(aligned, TOY.session(PROMPT), Seeded(seed), Stop(TOY.eos, max_new_tokens=length))):
        tokens += step.tokens
        future.learn(step, tokens)
    return tokens


def next_law(built: Built, future: Future, length: int = LENGTH) -> Law:
    """The law of the next sample, by its definition: no session, no tree."""
    laws, law = Aligned(built.laws.guides, False, {}, future=future), defaultdict[tuple[int, ...], float](float)

    def follow(words: tuple[int, ...], state: Any, weight: float) -> None:
        if len(words) == length or (words and words[-1] in TOY.eos):
            law[words] += weight
            return
        rows = definition_rows(TOY, laws, PROMPT, words, built.want)
        p = laws(rows, masks(built.constrain, [state], TOY.eos)).row(0)
        for token, chance in enumerate([] if p is None else p.tolist()):
            if chance > 0:
                follow((*words, token), run(built.constrain, state, [token], TOY.eos), weight * chance)

    follow((), built.constrain.start(PROMPT), 1.0)
    return dict(law)


def truth() -> tuple[Law, float]:
    """The law given the grammar, and how likely the grammar is."""
    grammar = {(*("ab".index(letter) for letter in text), 2) for text in FIVE}
    law = {words: chance for words, chance in wanted(TOY, made(constrain="none"), LENGTH).items() if words in grammar}
    whole = sum(law.values())
    return {words: chance / whole for words, chance in law.items()}, whole


def divergence(p: Law, q: Law) -> float:
    return sum(chance * math.log(chance / q[words]) for words, chance in p.items() if chance > 0)


def test_masks_alone_distort_and_the_trie_undoes_it() -> None:
    """Its chance of the grammar never rises and is never too low; in the end it is right, and so is the law."""
    built, future = made(), Future()
    want, whole = truth()
    masked = next_law(built, future)
    assert variation(masked, wanted(TOY, built, LENGTH)) < 1e-12  # the first sample is plain constrained sampling
    assert divergence(want, masked) > 0.1
    chances, seen = [1.0], set()
    for seed in range(500):
        seen.add(tuple(sample(built, future, seed)))
        chances.append(future.root.c)
        assert future.root.c >= whole - 1e-9
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(chances))
    assert divergence(want, next_law(built, future)) < 0.01
    for seed in range(500, 5000):
        if len(seen) == len(FIVE):
            break
        seen.add(tuple(sample(built, future, seed)))
    assert len(seen) == len(FIVE)
    assert variation(next_law(built, future), want) < 1e-6
    assert future.root.c == pytest.approx(whole, abs=1e-9)


def test_samples_cut_short_and_refused_drafts_teach_nothing_wrong() -> None:
    want, whole = truth()
    for draft in ("none", "ngram:min=1,length=2", "model:path=toy,length=2"):
        built, future = made(draft), Future()
        for seed in range(60):
            sample(built, future, seed, length=1 + seed % LENGTH)
            assert future.root.c >= whole - 1e-9
        for seed in range(150):
            sample(built, future, seed)
        assert divergence(want, next_law(built, future)) < 0.02, draft


def test_without_a_constraint_nothing_changes() -> None:
    built, future = made(constrain="none"), Future()
    for seed in range(5):
        assert sample(built, future, seed) == sample(built, Future(), seed)
    assert future.root.c == pytest.approx(1.0, abs=1e-12)
    assert variation(next_law(built, future), wanted(TOY, built, LENGTH)) < 1e-12


@pytest.mark.parametrize("draft", ["none", "ngram:min=1,length=2"])
def test_the_search_tells_the_law_given_the_grammar(draft: str) -> None:
    want, whole = truth()
    built = build(Recipe.of(draft, None, (SOFT,), Choice(FIVE), Asap(300)), TOY)
    session = TOY.session(PROMPT)
    *_, last = steps(launch(built, session, Seeded(1), Stop(TOY.eos, max_new_tokens=LENGTH)))
    assert last.log_evidence is not None
    assert math.exp(last.log_evidence) == pytest.approx(whole, rel=0.02)
    assert tuple(session.tokens[len(PROMPT) :]) == last.candidates[0].tokens
    for words, score in last.candidates:
        assert math.exp(score) == pytest.approx(want[words], rel=0.02)
        assert math.exp(score) <= want[words] + 1e-9
    assert len(last.candidates) == 300
