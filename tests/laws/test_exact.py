"""The likeliest answer and the likeliest span, against brute force."""

from __future__ import annotations

import itertools
import random

import pytest

from decodery.constrain.span import Span
from decodery.core.chooser import Seeded
from decodery.core.errors import DecoderyError
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.laws.engine import PROMPT
from decodery.laws.specimens import TOYS
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe
from decodery.search.exact import Exact

Words = tuple[int, ...]


def log_p(toy: ToyModel, words: Words) -> float:
    texts = [(*PROMPT, *words[:i]) for i in range(len(words))]
    return sum(float(toy.lm(text).log_softmax(-1)[word]) for text, word in zip(texts, words, strict=True))


def searched(exact: Exact, toy: ToyModel, constrain: object, length: int) -> list[Step]:
    built = build(Recipe.of("none", None, (), constrain, exact), toy)  # type: ignore[arg-type]
    return list(steps(launch(built, toy.session(PROMPT), Seeded(1), Stop(toy.eos, max_new_tokens=length))))


@pytest.mark.parametrize("width", [1, 3, 16])
@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
@pytest.mark.parametrize("n", [1, 7])
def test_the_likeliest_answers_are_those_of_brute_force(toy: ToyModel, n: int, width: int) -> None:
    answers = {
        words[: next((i for i, word in enumerate(words, 1) if word in toy.eos), 4)]
        for words in itertools.product(range(toy.vocab), repeat=4)
    }
    best = sorted(answers, key=lambda words: log_p(toy, words), reverse=True)[:n]
    found = searched(Exact(n, width), toy, "none", 4)[-1].candidates
    assert [one.tokens for one in found] == best
    assert [one.score for one in found] == pytest.approx([log_p(toy, words) for words in best])


EIGHT = ToyModel(8, seed=5, eos=frozenset({7}), order=3)
PASSAGE = "".join(random.Random(2).choice("abcdefg") for _ in range(30))


def spans(longest: int) -> set[Words]:
    """All spans of the passage, each with its end."""
    tokens = EIGHT.encode(PASSAGE)
    return {(*tokens[i : i + length], 7) for length in range(1, longest + 1) for i in range(len(tokens) - length + 1)}


@pytest.mark.parametrize("longest", [1, 5, 30])
def test_the_likeliest_span_is_that_of_all(longest: int) -> None:
    """465 spans of 30 tokens, scored one by one."""
    best = max(spans(longest), key=lambda words: log_p(EIGHT, words))
    for width in range(1, 10):
        (found,) = searched(Exact(width=width), EIGHT, Span(PASSAGE, longest), 40)[-1].candidates
        assert found.tokens == best
        assert found.score == pytest.approx(log_p(EIGHT, best), abs=1e-9)


def test_spans_that_are_no_spans_are_refused() -> None:
    span = Span("abcab", 2).bind(ToyModel(4))
    start = span.start(())
    assert span.mask(start).tolist() == [True, True, True, False]
    assert not span.may_end(start)
    state = span.advance(start, 1)
    assert state is not None
    assert span.may_end(state)
    assert span.mask(state).tolist() == [False, False, True, False]
    last = span.advance(state, 2)
    assert last is not None
    assert not span.mask(last).any()  # two tokens are the longest


def test_what_cannot_be_proven_is_refused() -> None:
    with pytest.raises(DecoderyError, match="after 3 nodes the likeliest answer is not proven"):
        searched(Exact(width=1, most=3), TOYS["open"], "none", 20)
