"""What a user wrote as text stays text: options of a choice, patterns, in specs and in YAML."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.core.errors import DecoderyError
from decodery.run.recipe import Recipe

OPTIONS = [
    ("[2.50,1.10]", ("2.50", "1.10")),
    ("[1-2,3-4]", ("1-2", "3-4")),
    ("[10-3,draw]", ("10-3", "draw")),
    ("[1e5,2]", ("1e5", "2")),
    ("[0x1f,0o7,1_000,+5,-0,.5,5.]", ("0x1f", "0o7", "1_000", "+5", "-0", ".5", "5.")),
    ("[007,1]", ("007", "1")),
    ('["a,b",c]', ("a,b", "c")),
    ("[true,false]", ("true", "false")),
    ("[True,FALSE]", ("True", "FALSE")),
    ("[none,some]", ("none", "some")),
    ("[yes,no]", ("yes", "no")),
    ("[on,off,y,n]", ("on", "off", "y", "n")),
    ("[NaN,Infinity,inf]", ("NaN", "Infinity", "inf")),
    ("[2024-01-02,12:30]", ("2024-01-02", "12:30")),
]


def constrain(spec: Any) -> Any:
    return Recipe.of(constrain=spec).constrain


@pytest.mark.parametrize(("written", "options"), OPTIONS)
def test_a_spec(written: str, options: tuple[str, ...]) -> None:
    assert constrain(f"choice:{written}").options == options
    assert constrain(f"choice:options={written}").options == options


@pytest.mark.parametrize(("written", "options"), OPTIONS)
def test_yaml(written: str, options: tuple[str, ...]) -> None:
    spaced = written.replace(",", ", ").replace("a, b", "a,b")
    assert Recipe.from_text(f"constrain: {{choice: {{options: {spaced}}}}}").constrain.options == options  # type: ignore[attr-defined]
    lines = "".join(f"\n    - {option!r}" if "," in option else f"\n    - {option}" for option in options)
    assert Recipe.from_text(f"constrain:\n  choice:\n   options:{lines}").constrain.options == options  # type: ignore[attr-defined]


@pytest.mark.parametrize(("written", "options"), OPTIONS)
def test_what_a_recipe_writes_it_reads(written: str, options: tuple[str, ...]) -> None:
    recipe = Recipe.of(constrain=f"choice:{written}")
    assert Recipe.from_text(recipe.to_text()).constrain == recipe.constrain
    assert Recipe.from_dict(recipe.to_dict()).constrain == recipe.constrain


@pytest.mark.parametrize(
    "pattern", ["[0-9]+ ", " a", "1-2", "1.10", "true", "none", "pattern", "a=b", "[a,b]{2}", '"x"']
)
def test_a_pattern(pattern: str) -> None:
    assert constrain(f"regex:{pattern}").pattern == pattern
    assert constrain({"regex": {"pattern": pattern}}).pattern == pattern


def test_numbers_are_still_numbers() -> None:
    recipe = Recipe.from_text("draft: {ngram: {max: 4}}\nguide: [{temperature: 0.5}, {top-k: 1}, {top-p: {p: 1e-1}}]")
    assert recipe.draft == Recipe.of("ngram:max=4").draft
    assert recipe.guide == Recipe.of(guide=["temperature:0.5", "top-k:1", "top-p:0.1"]).guide
    search = "search: {beam: {width: 2, early_stopping: true}}"
    assert Recipe.from_text(search).search == Recipe.of(search="beam:width=2,early_stopping=true").search


@pytest.mark.parametrize(
    "text",
    [
        "draft: [ngram, recycling]",
        "verify: [a]",
        "constrain: [x, y]",
        "search: [1]",
        "draft: 5",
        "draft: {1: 2}",
        "draft: {ngram: {max: [1]}}",
        "guide: {temperature: {t: inf}}",
        "guide: 'temperature:1e400'",
        "guide: 3",
    ],
)
def test_what_cannot_be_is_a_sentence(text: str) -> None:
    with pytest.raises(DecoderyError):
        Recipe.from_text(text)
