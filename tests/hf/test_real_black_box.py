"""Checks without a mask, on the demo model: the example, digits only, and the laws of whole answers."""

from __future__ import annotations

import ast
import math
import runpy
from pathlib import Path
from typing import Any

import pytest

import decodery
from decodery.constrain.check import Check

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real")]
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_of_valid_python(smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(decodery, "load", lambda _: smollm2)
    runpy.run_path(str(EXAMPLES / "valid_python.py"), run_name="__main__")
    first, second = capsys.readouterr().out.split("different answers\n")[:2]
    code = first[: first.index("\n# stop; ")]
    assert ast.parse(code).body
    assert "import" not in second[: second.index("\n# stop; ")]


def test_digits_only_asks_about_few_tokens(smollm2: Any) -> None:
    """Under 60 of 49152 tokens at each place (the paper's card), and nothing but digits comes."""
    check = Check(lambda text: text.isdigit() or not text)
    output = decodery.decode(
        smollm2,
        "The first digits of pi are 3.",
        constrain=check,
        search="smc:particles=1",
        guide="temperature:1.0",
        max_new_tokens=60,
        ignore_eos=True,
        seed=1,
    )
    assert output.text.isdigit()
    assert len(output.tokens) == 60
    assert output.stats.calls["checks"] < 60 * 60


def test_the_evidence_is_what_the_mask_says(smollm2: Any) -> None:
    """Of one token: the mean of the weights of many particles is the allowed mass, which the mask tells exactly."""
    options = {
        "constrain": Check(lambda text: text.isdigit() or not text),
        "guide": "temperature:1.0",
        "max_new_tokens": 1,
        "seed": 2,
    }
    prompt = "In 1969, a man walked on the moon. In "
    masked = decodery.decode(smollm2, prompt, search="smc:particles=1,masks=true", **options)
    drawn = decodery.decode(smollm2, prompt, search="smc:particles=200", **options)
    assert drawn.log_evidence == pytest.approx(masked.log_evidence, abs=0.2)
    assert sum(math.exp(one.score) for one in drawn.candidates) == pytest.approx(math.exp(drawn.log_evidence))
    assert drawn.stats.calls["checks"] < 200 * smollm2.vocab / 10


def test_the_exact_search_beats_greedy_among_spans(smollm2: Any) -> None:
    """A span of the passage, at least as likely as the greedy one, with few of all spans computed."""
    passage = " The Eiffel Tower was built in 1889 by the company of Gustave Eiffel, and stands in Paris."
    prompt = f"Text:{passage}\nQuestion: Who built the Eiffel Tower?\nAnswer:"
    options = {"constrain": {"span": {"text": passage, "longest": 10}}, "stop": smollm2.pieces("\n")[0]}
    greedy = decodery.decode(smollm2, prompt, draft="none", **options)
    exact = decodery.decode(smollm2, prompt, search="exact:n=30", **options)
    assert exact.text.strip()
    assert exact.text in passage
    scores = {one.tokens: one.score for one in exact.candidates}
    if tuple(greedy.tokens) in scores:
        assert exact.candidates[0].score >= scores[tuple(greedy.tokens)]
    told = decodery.score(smollm2, prompt, exact.tokens)
    assert told.logprob == pytest.approx(exact.candidates[0].score, abs=2e-3)
