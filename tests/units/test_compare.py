"""``decodery.compare``: methods side by side, as a table that people and programs read."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import decodery
from decodery.core.errors import DecoderyError
from decodery.core.stats import Stats
from decodery.draft.ngram import NGram
from decodery.inspect import compare as module

from ..hf.test_decode import PROMPTS, tokenizer
from ..hf.tiny import network


@pytest.fixture(scope="module")
def model() -> Any:
    return decodery.load((network("llama"), tokenizer()))


OPTIONS: Any = {"max_new_tokens": 12, "ignore_eos": True}


def test_a_line_for_each_method(model: Any) -> None:
    found = decodery.compare(model, PROMPTS[0], ["ngram:max=2", NGram(min=2)], **OPTIONS)
    assert [line.method for line in found] == ["none", "ngram:max=2", "ngram:min=2"]
    assert found[0].tokens == 12
    assert found[0].tokens_per_forward == 1
    assert found[0].speedup == 1
    assert all(line.identical for line in found)
    assert found[1].tokens_per_forward == pytest.approx(
        decodery.decode(model, PROMPTS[0], draft="ngram:max=2", **OPTIONS).stats.tokens_per_forward
    )
    for line in found:
        assert line.speedup == pytest.approx(line.tokens_per_second / found[0].tokens_per_second)
    assert [line.method for line in decodery.compare(model, PROMPTS[0], "none,ngram:max=2,min=1", **OPTIONS)] == [
        "none",
        "ngram:max=2,min=1",
    ]


def test_several_prompts_count_together(model: Any) -> None:
    both = decodery.compare(model, PROMPTS[:2], ["ngram"], rounds=2, **OPTIONS)
    ones = [decodery.decode(model, prompt, draft="ngram", **OPTIONS).stats for prompt in PROMPTS[:2]]
    assert both[1].tokens == sum(one.tokens for one in ones) == 24
    assert both[1].drafted == sum(one.drafted for one in ones)
    assert both[1].tokens_per_forward == pytest.approx(24 / sum(one.forwards for one in ones))


def test_options_hold_for_all_methods(model: Any) -> None:
    sampled = decodery.compare(model, PROMPTS[0], ["ngram"], guide="temperature:0.9", seed=3, **OPTIONS)
    assert [line.identical for line in sampled] == [None, None]
    refused = decodery.compare(model, PROMPTS[0], ["ngram"], search="beam:width=2", max_new_tokens=3)
    assert refused[0].tokens == 3
    assert "explores without drafts" in refused[1].note
    assert refused[1].tokens == 0
    assert "explores without drafts" in str(refused)


def test_an_answer_that_differs_is_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = module._run

    def wrong(model: Any, prompt: Any, recipe: Any, options: Any) -> Any:
        output, gaps = run(model, prompt, recipe, options)
        if "ngram" in str(recipe.to_dict()):
            output.tokens[3] += 1
        return output, [1.0 for _ in gaps]

    monkeypatch.setattr(module, "_run", wrong)
    found = decodery.compare(model, PROMPTS[:2], ["ngram:max=2"], **OPTIONS)
    assert found[1].identical is False
    assert "differs at token 3" in found[1].note
    assert "NO (differs at token 3" in str(found)


def test_how_it_shows_itself(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decodery.compare(model, PROMPTS[0], ["ngram"], **OPTIONS)
    head, plain, drafted = str(found).splitlines()
    assert head.split() == ["method", "tok/s", "vs", "plain", "tokens/forward", "accepted", "identical"]
    assert plain.startswith("none ")
    assert drafted.startswith("ngram")
    assert drafted.endswith("yes")
    found[1] = found[1]._replace(note="<b>")
    shown = found._repr_html_()
    assert shown.count("<tr>") == 3
    assert "&lt;b&gt;" in shown
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DecoderyError, match="pip install pandas"):
        found.to_pandas()
    frame = SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", frame)
    rows, columns = found.to_pandas()
    assert rows[1]["method"] == "ngram"
    assert list(rows[0]) == columns


@pytest.mark.parametrize(
    ("methods", "options", "said"),
    [
        (["ngran"], {}, "Did you mean 'ngram'"),
        ([], {}, "methods= names no drafter"),
        (",", {}, "name drafters"),
        ([3], {}, "draft"),
        (["ngram:max=0"], {}, "max"),
        (["ngram"], {"rounds": 0}, "rounds is a whole number from 1 on"),
        (["ngram"], {"draft": "suffix"}, "methods= names the drafters"),
        (["ngram"], {"session": "x"}, "compare takes no session="),
        (["ngram"], {"max_tokens": 3}, "there is no option 'max_tokens'"),
        (["ngram"], {"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
    ],
)
def test_what_cannot_be_compared(methods: Any, options: dict[str, Any], said: str, model: Any) -> None:
    with pytest.raises(DecoderyError, match=said):
        decodery.compare(model, PROMPTS[0], methods, **options)


def test_figures_of_several_answers() -> None:
    one = Stats(tokens=3, forwards=2, drafted=4, accepted=1, seconds=2.0, first=0.5, phases={"draft": 1.0})
    two = Stats(
        tokens=5, forwards=5, seconds=1.5, first=0.5, lossless=False, plain=0.2, phases={"draft": 0.5, "x": 1.0}
    )
    both = one + two
    assert (both.tokens, both.forwards, both.drafted, both.seconds, both.lossless) == (8, 7, 4, 3.5, False)
    assert both.phases == {"draft": 1.5, "x": 1.0}
    assert one.phases == {"draft": 1.0}, "the figures that were added stay as they are"
    assert module._speed([one, two]) == pytest.approx((2 + 4) / 2.5)
    assert module._speed([one]) == pytest.approx(one.tokens_per_second)
