"""What the searches of the package answer, by the definition of each: brute force and order statistics."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from decodery.core.stop import Stop
from decodery.laws.engine import PROMPT, variation, wanted
from decodery.laws.search import LENGTH, law_of
from decodery.laws.specimens import TOYS, WARM
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe
from decodery.search.beam import Beam
from decodery.search.best_of_n import BestOfN
from decodery.search.first_finish import FirstFinish

Words = tuple[int, ...]


def mean(toy: ToyModel, words: Words, penalty: float = 1.0) -> float:
    """The log-probability of an answer under the model's own law, by its length."""
    texts = [(*PROMPT, *words[:i]) for i in range(len(words))]
    logs = [float(toy.lm(text).log_softmax(-1)[word]) for text, word in zip(texts, words, strict=True)]
    return sum(logs) / len(words) ** penalty


def order_statistic(toy: ToyModel, n: int, better: Callable[[Sequence[Words]], Words]) -> dict[Words, float]:
    """The law of the best of n independent answers, by its definition."""
    single = wanted(toy, build(Recipe.of(None, None, (WARM,)), toy), LENGTH)
    law: Counter[Words] = Counter()
    for answers in itertools.product(single, repeat=n):
        law[better(answers)] += math.prod(single[words] for words in answers)  # type: ignore[assignment]
    return dict(law)


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_best_of_n_is_the_best_of_n_independent_answers(toy: ToyModel, n: int, penalty: float) -> None:
    if n == 3 and (penalty == 0.0 or not toy.eos):
        pytest.skip("the same at a greater price")
    want = order_statistic(toy, n, lambda answers: max(answers, key=lambda words: mean(toy, words, penalty)))
    assert variation(law_of(BestOfN(n, penalty), toy, (WARM,)), want) < 1e-9


@pytest.mark.parametrize("n", [1, 2, 3])
def test_first_finish_is_the_shortest_of_n_independent_answers(n: int) -> None:
    toy = TOYS["ends"]

    def first(answers: Sequence[Words]) -> Words:
        ended = [words for words in answers if words[-1] in toy.eos]
        return min(ended, key=len) if ended else max(answers, key=lambda words: mean(toy, words))

    assert variation(law_of(FirstFinish(n), toy, (WARM,)), order_statistic(toy, n, first)) < 1e-9


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("length", [1, 3])
def test_a_beam_of_full_width_is_brute_force(toy: ToyModel, penalty: float, length: int) -> None:
    built = build(Recipe.of(search=Beam(3**length, penalty)), toy)
    session = toy.session(PROMPT)
    *_, last = steps(launch(built, session, None, Stop(toy.eos, max_new_tokens=length)))  # type: ignore[arg-type]
    answers = {
        words[: next((i for i, word in enumerate(words, 1) if word in toy.eos), length)]
        for words in itertools.product(range(toy.vocab), repeat=length)
    }
    best = sorted(answers, key=lambda words: mean(toy, words, penalty), reverse=True)
    assert [candidate.tokens for candidate in last.candidates] == best
    assert tuple(session.tokens[len(PROMPT) :]) == best[0]
