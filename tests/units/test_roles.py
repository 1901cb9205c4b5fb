"""The table of roles drives recipes, command line and options; parts from outside come in by name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decodery.cli import app
from decodery.core.errors import DecoderyError, UnknownPart
from decodery.draft.copyspec import CopySpec
from decodery.draft.mix import Mix
from decodery.draft.ngram import NGram
from decodery.guide.top_k import TopK
from decodery.run import registry
from decodery.run.options import Options, recipe_from
from decodery.run.recipe import Recipe, recipe_roles
from decodery.run.registry import ROLES, default, entries, find, name_of
from decodery.run.spec import describe, part, schema_of, specs, text_of

OUTSIDE = '''
from dataclasses import dataclass
from typing import Annotated
from annotated_types import Ge
from decodery.core.roles import Constraint, Drafter, Guide, Search, Verifier
from decodery.core.tree import TokenTree

@dataclass
class Mine(Drafter):
    """Guesses a token again and again."""
    size: Annotated[int, Ge(1)] = 2
    word: str = ""

    def propose(self, session, budget, rng):
        return TokenTree.chain([session.tokens[-1]] * min(self.size, *budget))

class Undeclared(Drafter):
    size: int = 2

    def propose(self, session, budget, rng):
        return TokenTree()

@dataclass
class Empty(Drafter):
    pass

@dataclass
class Halves(Guide):
    """Does nothing."""
    def __call__(self, logits, rows):
        return logits

NOTHING = 3
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "__init__.py").write_text("")
    (tmp_path / "outer" / "parts.py").write_text(OUTSIDE)
    (tmp_path / "single_outer.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("outer", "single_outer")]:
        del sys.modules[name]


@pytest.mark.usefixtures("outside")
def test_a_part_from_outside_works_wherever_a_name_does() -> None:
    mine = part("draft", "outer.parts:Mine:size=3,word=2.50")
    assert (mine.size, mine.word) == (3, "2.50")  # type: ignore[attr-defined]
    assert name_of(mine) == ("draft", "outer.parts:Mine")
    assert describe(mine) == {"outer.parts:Mine": {"size": 3, "word": "2.50"}}
    for spec in (describe(mine), text_of(mine), {"outer.parts:Mine": {"size": 3, "word": "2.50"}}):
        assert part("draft", spec) == mine
    mixed = Recipe.of("mix(ngram:max=5,width=2,outer.parts:Mine:size=3,word=x,recycling)", guide="outer.parts:Halves")
    assert [type(one).__name__ for one in mixed.draft.inner()] == ["NGram", "Mine", "Recycling"]
    assert Recipe.from_text(mixed.to_text()) == mixed
    assert Recipe.from_dict(json.loads(json.dumps(mixed.to_dict()))) == mixed
    assert specs("none,single_outer:Mine:size=3,ngram") == ["none", "single_outer:Mine:size=3", "ngram"]
    assert type(part("draft", "single_outer:Mine")).__name__ == "Mine"
    assert schema_of("draft", "outer.parts:Mine")["properties"]["size"]["minimum"] == 1


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("outer.parts:Undeclared", "outer.parts:Undeclared declares no parameters: put @dataclass"),
        ("outer.parts:Empty", "outer.parts:Empty is no draft part yet: it does not define propose"),
        ("outer.parts:Halves", "outer.parts:Halves is no draft part: it is a guide part"),
        ("outer.parts:NOTHING", "outer.parts:NOTHING is no draft part: a draft part derives from"),
        ("outer.parts:Missing", "has no attribute 'Missing'"),
        ("outer.nowhere:Mine", "No module named 'outer.nowhere'"),
        ("outer.parts:Mine:size=0", "outer.parts:Mine needs size >= 1, not 0"),
        ("outer.parts:Mine:sise=1", "has no parameter 'sise'; it has size, word. Did you mean 'size'"),
        ("ngran:max=3", "Did you mean 'ngram'"),
    ],
)
def test_a_part_from_outside_that_will_not_do_is_refused_by_name(spec: str, message: str) -> None:
    with pytest.raises(DecoderyError) as caught:
        part("draft", spec)
    assert message in str(caught.value)


@pytest.mark.usefixtures("outside")
def test_distributions_declare_parts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    points = [
        EntryPoint("draft/mine", "outer.parts:Mine", "decodery.parts"),
        EntryPoint("guide:halves", "outer.parts:Halves", "decodery.parts"),
        EntryPoint("draft/ngram", "outer.parts:Mine", "decodery.parts"),
        EntryPoint("wonder", "outer.parts:Mine", "decodery.parts"),
    ]
    monkeypatch.setattr("decodery.run.outside.entry_points", lambda group: points if group == "decodery.parts" else [])
    registry._declared.cache_clear()
    try:
        assert Recipe.of("mine:size=4", guide="halves").to_dict() == {
            "draft": {"mine": {"size": 4}},
            "guide": ["halves"],
        }
        assert part("draft", "ngram") == NGram()
        assert {("draft", "mine"), ("guide", "halves")} <= {(entry.role, entry.name) for entry in entries()}
        assert not any(entry.outside for entry in entries(outsiders=False))
        assert "wonder" in caplog.text
        shown = CliRunner().invoke(app, ["show", "mine"])
        assert re.search(r"size +int +2 +size >= 1", shown.output)
    finally:
        registry._declared.cache_clear()


def test_a_name_beats_a_module_of_that_name() -> None:
    assert part("constrain", "regex:pattern").pattern == "pattern"  # type: ignore[attr-defined]


def test_attributes_of_a_recipe_follow_the_table() -> None:
    recipe = Recipe.of("ngram", guide=["top-k:3", "temperature:0.5"])
    assert recipe.draft == NGram()
    assert recipe.verify is None
    assert [name_of(one)[1] for one in recipe.guide] == ["top-k", "temperature"]
    assert recipe.replace(draft=None, verify="block").to_dict() == {
        "verify": "block",
        "guide": [{"top-k": {"k": 3}}, {"temperature": {"t": 0.5}}],
    }
    with pytest.raises(AttributeError, match="a recipe has no 'drafts'"):
        recipe.drafts  # noqa: B018
    assert set(recipe_roles()) <= set(Options.__annotations__)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": Recipe.of("ngram"), "draft": "none"}, "leave out draft=, or recipe="),
        ({"recipe": Recipe.of("ngram"), "guide": "top-k", "verify": "block"}, "verify= and guide="),
        ({"recipe": "ngram"}, "recipe= takes a decodery.Recipe"),
        ({"drafts": "ngram"}, "there is no option 'drafts'"),
        ({"max_new_token": 3}, "Did you mean 'max_new_tokens'"),
        ({"draft": ["ngram", "recycling"]}, "draft takes one part"),
        ({"draft": 3}, "not by 3"),
        ({"guide": 3}, "not by 3"),
        ({"draft": TopK(3)}, "'top-k' is a guide part, not a draft part"),
    ],
)
def test_options_that_contradict_or_mislead_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DecoderyError) as caught:
        recipe_from(options)
    assert message in str(caught.value)


def test_options_make_a_recipe() -> None:
    given = Recipe.of("ngram")
    assert recipe_from({"recipe": given, "draft": None, "seed": 3}) is given
    assert recipe_from({"draft": "ngram", "verify": None, "max_new_tokens": 3}) == given


WRITTEN = [
    "2.50",
    "1-2",
    "1e5",
    "true",
    "none",
    "yes",
    "null",
    "~",
    "007",
    "0x10",
    "1_000",
    ".5",
    "+1",
    "1e400",
    "a)",
    ":(",
    '5"',
    "[x]",
]


def test_text_stays_what_was_written() -> None:
    for word in WRITTEN:
        assert part("constrain", f"choice:[{word},other]").options == (word, "other")  # type: ignore[attr-defined]
        assert part("guide", f"cfg:scale=2,negative={word}").negative == word  # type: ignore[attr-defined]
        if word not in ("[x]", ":("):
            options = Recipe.from_text(f"constrain: {{choice: {{options: [{word}, other]}}}}").constrain.options  # type: ignore[attr-defined]
            assert options == (word, "other")
            with suppress(DecoderyError):  # of what is no regular expression
                assert Recipe.from_text(f"constrain: {{regex: {word}x}}").constrain.pattern == f"{word}x"  # type: ignore[attr-defined]
        recipe = Recipe.of(constrain={"choice": {"options": [word, "other"]}})
        assert Recipe.from_text(recipe.to_text()) == recipe
    assert part("constrain", 'choice:["a,b"," c",d]').options == ("a,b", " c", "d")  # type: ignore[attr-defined]
    for pattern in ("[0-9]+ ", ' "x" ', "a,b", "a=b"):
        assert part("constrain", f"regex:{pattern}").pattern == pattern  # type: ignore[attr-defined]
    assert part("draft", "suffix:corpus=2024").corpus == "2024"  # type: ignore[attr-defined]


def test_numbers_are_numbers_however_they_are_written() -> None:
    for text in ("3", "+3", "0x3", "0o3"):
        assert part("guide", f"top-k:{text}") == TopK(3) == Recipe.from_text(f"guide: {{top-k: {text}}}").guide[0]
    assert part("guide", "logit-bias:{a: -inf, 9: 1}").bias == {"a": float("-inf"), 9: 1.0}  # type: ignore[attr-defined]
    assert part("guide", {"logit-bias": {"bias": {"9": 1}}}).bias == {9: 1.0}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("role", "spec", "message"),
    [
        ("guide", "temperature:1e400", "temperature needs a finite t, not inf"),
        ("guide", "temperature:inf", "temperature needs a finite t, not inf"),
        ("guide", {"temperature": {"t": float("nan")}}, "temperature needs a finite t, not nan"),
        ("guide", "top-k:2.5", "top-k:k must be int, not 2.5"),
        ("guide", "top-k:" + "9" * 5000, "must be int"),
        ("guide", "logit-bias:{a: .inf}", "logit-bias needs bias['a'] < inf, not inf"),
        ("constrain", {"choice": [2.5]}, "choice:options must be text, not 2.5 (write it in quotes)"),
        ("constrain", "choice:yes", "must be a list such as [a,b], not 'yes'"),
        ("constrain", "choice", "constrain part 'choice' needs options"),
        ("draft", "model:layers=[0-99999999]", "the range 0-99999999 is too long"),
        ("draft", "mix(" * 3000 + "ngram" + ")" * 3000, "too deeply"),
        ("draft", 3, "not by 3"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_said(role: str, spec: Any, message: str) -> None:
    with pytest.raises(DecoderyError) as caught:
        part(role, spec)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 7000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("draft: [ngram, recycling]", "draft takes one part, not the list ['ngram', 'recycling']"),
        ("guide: [top-k:3, top-k:4]", "the guide part 'top-k' is named twice"),
        ("guide: {top-k: 3, top-p: 0.5}", "names one part"),
        ("draft: ngram\ndraft: none", "draft stands twice"),
        ("draft: &a [*a]", "nested too deeply"),
        ("draft: !!python/name:os.system x", "the recipe cannot be read"),
        ("gudie: top-k", "Did you mean 'guide'"),
        ("draft: 3", "no draft part is called '3'"),
    ],
)
def test_a_recipe_that_will_not_do_is_refused_in_a_sentence(text: str, message: str) -> None:
    with pytest.raises(DecoderyError) as caught:
        Recipe.from_text(text)
    assert message in str(caught.value)


def test_empty_entries_of_a_recipe_are_defaults() -> None:
    assert Recipe.from_text("draft:\nverify: null\nguide: []\n") == Recipe.of()
    assert Recipe.from_text("draft: {ngram: }") == Recipe.of("ngram")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "TopK needs k >= 1, not 0"),
        (lambda: TopK("x"), "TopK:k must be int, not 'x'"),  # type: ignore[arg-type]
        (lambda: CopySpec(pick="last"), "pick=first or latest"),  # type: ignore[arg-type]
        (lambda: Mix((3,)), "Mix:parts must be Drafter, not 3"),  # type: ignore[arg-type]
    ],
)
def test_parts_made_in_python_are_checked_as_well(make: Any, message: str) -> None:
    with pytest.raises(DecoderyError) as caught:
        make()
    assert message in str(caught.value)


def test_a_default_is_made_by_name() -> None:
    field = default("ngram", max=3)
    assert field.default_factory() == NGram(max=3)
    with pytest.raises(UnknownPart, match="Did you mean 'ngram'"):
        default("ngran").default_factory()


def test_every_part_has_a_schema_and_every_role_its_methods() -> None:
    for entry in entries():
        schema = schema_of(entry.role, entry.name)
        assert json.dumps(schema, default=str)
        assert schema["additionalProperties"] is False
        for either in ROLES[entry.role].does:
            methods = [getattr(find(entry.role, entry.name).part, method, None) for method in either.split("|")]
            assert any(callable(method) for method in methods)


@pytest.mark.parametrize("command", ["run", "chat", "compare", "profile", "bench"])
def test_every_command_has_an_option_for_every_role(command: str) -> None:
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [command, "--help"]).output
    for option in (*(f"--{role}" for role in recipe_roles()), "--temperature", "--recipe", "--plan"):
        assert option in shown


@pytest.mark.parametrize("command", ["run", "compare", "profile", "chat"])
def test_a_recipe_beside_parts_is_refused(command: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("draft: ngram\n")
    prompt = [] if command == "chat" else ["x"]
    for extra, named in (
        (["-d", "none"], "--methods" if command == "compare" else "--draft"),
        (["-t", "0.5", "--search", "beam"], "--search and --temperature"),
    ):
        result = CliRunner().invoke(app, [command, *prompt, "--recipe", str(file), *extra])
        assert result.exit_code == 2
        assert f"leave out {named}, or --recipe" in result.stderr.replace("\n", " ")


def test_a_misspelt_option_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["run", "x", "--drat", "none"])
    assert result.exit_code == 2
    assert "--draft" in result.output
