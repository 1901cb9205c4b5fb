"""Recipes: text, dictionary and objects say the same; what is wrong is named."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.errors import DecoderyError, UnknownPart
from decodery.core.written import listed, resolved
from decodery.draft.copyspec import CopySpec
from decodery.draft.mix import Mix
from decodery.draft.model import ModelDraft
from decodery.draft.ngram import NGram
from decodery.draft.recycling import Recycling
from decodery.draft.suffix import Suffix
from decodery.guide.top_p import TopP
from decodery.run.recipe import Recipe
from decodery.run.registry import entries, find, name_of
from decodery.run.spec import describe, parse, part, specs


def test_three_ways_to_say_it() -> None:
    for spec in ("ngram:max=5,width=3", {"ngram": {"max": 5, "width": 3}}, NGram(max=5, width=3)):
        assert part("draft", spec) == NGram(max=5, width=3)
    assert part("guide", "top-p:0.8") == TopP(0.8)
    assert part("guide", {"top-p": 0.8}) == TopP(0.8)
    assert part("draft", {"ngram": None}) == NGram()


@given(
    st.builds(NGram, max=st.integers(2, 9), min=st.integers(1, 2), length=st.integers(1, 20), width=st.integers(1, 5)),
    st.lists(st.builds(TopP, p=st.floats(0.01, 1.0)), max_size=1),
    st.booleans(),
)
def test_round_trip(draft: NGram, guides: list[Any], beam: bool) -> None:
    recipe = Recipe.of(
        draft if not beam else "none", "residual", guides, "regex:[ab]+", "beam:width=3" if beam else None
    )
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_text(recipe.to_text()) == recipe


def test_parts_made_of_parts() -> None:
    """All ways to say it, nested to any depth, and back again."""
    mix = Mix((NGram(max=4, width=3), Recycling()), nodes=15)
    for spec in (
        "mix(ngram:max=4,width=3,recycling):nodes=15",
        " mix( ngram:max=4,width=3 , recycling ):nodes=15",
        'mix:parts=[{"ngram": {"max": 4, "width": 3}}, "recycling"],nodes=15',
        {"mix": {"parts": [{"ngram": {"max": 4, "width": 3}}, "recycling"], "nodes": 15}},
        mix,
    ):
        assert part("draft", spec) == mix
    assert part("draft", "mix") == part("draft", "mix(ngram,recycling)")
    assert part("draft", {"mix": ["suffix"]}) == Mix((Suffix(),))
    nested = part("draft", "mix(mix(copyspec:gamma=2,copy=4,suffix):nodes=6,model:layers=[0,2],ngram):nodes=9")
    assert nested == Mix(
        (Mix((CopySpec(gamma=2, copy=4), Suffix()), nodes=6), ModelDraft(layers=(0, 2)), NGram()), nodes=9
    )
    for draft in (mix, nested):
        recipe = Recipe.of(draft)
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        assert Recipe.from_text(recipe.to_text()) == recipe
    both = "mix(ngram:max=4,recycling):nodes=3"
    assert specs(f"{both},none") == [both, "none"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mix(ngram", "check its brackets"),
        ("mix(ngram)recycling", "check its brackets"),
        ("mix()", "name drafters"),
        ("mix(ngran,recycling)", "Did you mean 'ngram'"),
        ("mix(ngram:max=0)", "1 <= min <= max"),
        ("mix(top-p,ngram)", "no draft part is called 'top-p'"),
        ("mix(ngram):recycling", "the first parameter twice"),
        ("mix:parts=[3]", "mix:parts must be Drafter, not 3"),
        ("mix(ngram,recycling):share=[1]", "no parameter 'share'; it has parts, nodes"),
        ("mix(ngram):nodes=0", "nodes >= 1"),
        ("ngram(recycling)", "ngram:max must be int"),
        ("none(ngram)", "it has none"),
    ],
)
def test_errors_in_parts_of_parts(spec: str, message: str) -> None:
    with pytest.raises(DecoderyError, match=message):
        part("draft", spec)


NAMES = st.text("abcdefgh", min_size=1, max_size=6)
VALUES = st.one_of(st.integers(-99, 99), st.booleans(), st.floats(-9, 9), st.lists(st.integers(0, 9), max_size=4))


@given(NAMES, st.dictionaries(NAMES.filter(str.isidentifier), VALUES, max_size=4))
def test_parse_reads_what_is_written(name: str, values: dict[str, Any]) -> None:
    spec = name + ":" * bool(values) + ",".join(f"{key}={json.dumps(value)}" for key, value in values.items())
    found, written = parse(spec)
    assert found == name
    assert {key: resolved(value) for key, value in written.items() if not isinstance(values[key], list)} == {
        key: value for key, value in values.items() if not isinstance(value, list)
    }
    assert all(
        list(map(resolved, listed(written[key]))) == value for key, value in values.items() if isinstance(value, list)
    )


@given(st.text(max_size=40))
def test_any_text_is_a_part_or_a_clear_error(text: str) -> None:
    try:
        part("draft", text)
    except DecoderyError as error:
        assert str(error)


def test_ranges_and_words_in_lists() -> None:
    assert part("draft", "model:layers=[0-3,7]").layers == (0, 1, 2, 3, 7)  # type: ignore[attr-defined]
    assert Recipe.from_text("draft: {model: {layers: [0-3, 7]}}").draft == ModelDraft(layers=(0, 1, 2, 3, 7))
    assert parse("choice:[yes,no]") == ("choice", {"": "[yes,no]"})
    assert part("constrain", "choice:[yes,no]").options == ("yes", "no")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("role", "spec", "message"),
    [
        ("draft", "ngran", "Did you mean 'ngram'"),
        ("draft", "ngram:maxi=3", "no parameter 'maxi'; it has max, min, length, width"),
        ("draft", "ngram:max=three", "ngram:max must be int, not 'three'"),
        ("draft", "ngram:max=true", "ngram:max must be int, not True"),
        ("draft", "ngram:max=0", "1 <= min <= max"),
        ("draft", "ngram:max=2,max=3", "gives max twice"),
        ("draft", {"ngram": {}, "none": {}}, "names one part"),
        ("draft", "none:3", "it has none"),
        ("draft", "recycling:template=huge", "small, published"),
        ("guide", "top-p:2", "0 <= p <= 1"),
        ("constrain", "regex", "needs a pattern"),
        ("wonder", "x", "roles: draft, verify"),
    ],
)
def test_errors_say_what_would_work(role: str, spec: Any, message: str) -> None:
    with pytest.raises(DecoderyError, match=message.replace("[", r"\[")):
        part(role, spec)


def test_a_regular_expression_is_taken_as_it_is() -> None:
    for pattern in ("[0-9]", "(?i)b", "a{1,3},x=y", "pattern"):
        assert part("constrain", f"regex:{pattern}").pattern == pattern  # type: ignore[attr-defined]
        assert part("constrain", f"regex:pattern={pattern}").pattern == pattern  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["draft: [", "- a\n- b", "drafter: ngram", "guide: {a: 1, b: 2}"])
def test_bad_recipes(text: str) -> None:
    with pytest.raises(DecoderyError):
        Recipe.from_text(text)


def test_registry_knows_every_part_by_its_class() -> None:
    for entry in entries():
        kind = entry.part
        assert dataclasses.is_dataclass(kind)
        assert (kind.__doc__ or "").strip()
        example = part(entry.role, {entry.name: kind.specimens[0]})
        assert name_of(example) == (entry.role, entry.name)
        assert find(entry.role, entry.name).part is kind
        described = describe(example)
        assert (described if isinstance(described, str) else next(iter(described))) == entry.name


def test_parts_made_inside_a_function_keep_their_class_name() -> None:
    class Mine(Recycling):
        pass

    assert name_of(Mine()) == ("draft", "Mine")


def test_drafter_lists() -> None:
    assert specs("none,ngram:max=4,width=3,recycling") == ["none", "ngram:max=4,width=3", "recycling"]
    with pytest.raises(DecoderyError, match="name drafters"):
        specs(" , ")
    with pytest.raises(UnknownPart):
        part("draft", specs("nonsense,none")[0])
