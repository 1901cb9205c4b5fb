"""Constraints by JSON schemas and grammars, over the demo model's tokenizer and without its network."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from decodery.core.errors import DecoderyError
from decodery.core.part import ready
from decodery.core.tree import ROOT, TokenTree
from decodery.core.walk import masks, run, walk
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.run.spec import part

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def js(schema: Any, **options: Any) -> dict[str, Any]:
    """The spec of a schema."""
    return {"json-schema": {"schema": schema, **options}}


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0)


@dataclass
class Point:
    x: int
    y: int


class Film(TypedDict):
    title: str
    year: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Words:
    """The demo model as far as a constraint asks for it: its tokenizer."""

    tokenizer: Any
    vocab: int = 49152
    eos: frozenset[int] = frozenset({2})

    def matcher_tokenizer(self) -> Any:
        return self.tokenizer


@pytest.fixture(scope="module")
def words() -> Words:
    from decodery.model.load import load_text

    try:
        return Words(load_text("smollm2").matcher_tokenizer)
    except DecoderyError as error:
        pytest.skip(str(error))


Accepts = Callable[[Any, str], bool]


@pytest.fixture(scope="module")
def accepts(words: Words) -> Accepts:
    """Whether a text is allowed token by token, by masks, and the answer may end behind it."""

    def ask(spec: Any, text: str) -> bool:
        constraint = copy.copy(part("constrain", spec)).bind(words)  # type: ignore[arg-type]
        state = constraint.start(())  # type: ignore[attr-defined]
        for token in words.tokenizer.tokenize_str(text):
            allowed = bool(constraint.mask(state)[token])  # type: ignore[attr-defined]
            after = constraint.advance(state, token)  # type: ignore[attr-defined]
            assert (after is not None) == allowed, (text, token)
            if after is None:
                return False
            state = after
        return bool(constraint.may_end(state))  # type: ignore[attr-defined]

    return ask


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        ("json", ["1", "-2.5", '"a"', '[1, "x", null]', '{"a": {"b": []}}'], ["", "01", "[1,2]", "{a: 1}", '"x']),
        ("json:object", ["{}", '{"a": 1}'], ["1", "[]", '{"a":1}']),
        ("json:whitespace=compact", ["[1,2]", '{"a":1}'], ["[1, 2]"]),
        ("json:whitespace=lines", ["[1, 2]", '{\n  "a": 1\n}'], ["[1,  2]", f"[\n{' ' * 30}1]"]),
        ("json:whitespace=any", ["[1,   2]", '{\n\n "a" : 1}'], ["[1 2]"]),
        (js(PERSON), ['{"name": "Al", "age": 3}'], ['{"name": "Al"}', '{"name": "Al", "age": 131}']),
        (Person, ['{"name": "Al", "age": 3}'], [json.dumps({"name": "x" * 21, "age": 3}), '{"name": "Al", "age": -3}']),
        (Point, ['{"x": 1, "y": -2}'], ['{"x": 1, "y": 2, "z": 3}', '{"y": 1, "x": 2}', '{"x": 1.5, "y": 2}']),
        (Film, ['{"title": "Up", "year": 2009}'], ['{"title": "Up"}']),
        (Colour, ['"red"'], ['"green"', "red"]),
        (list[Literal["a", "b"]], ["[]", '["a", "b", "a"]'], ['["c"]', '["a"']),
        ('lark:start: "a" start "b" | "c"', ["c", "aacbb"], ["aacb", ""]),
        ('gbnf:root ::= "a" root "b" | [cd]+', ["aacdcbb"], ["ab", ""]),
        ({"gbnf": {"text": 'root ::= "a" root "b" | [cd]+', "engine": "xgrammar"}}, ["acdb"], ["ab", ""]),
        (js(PERSON, engine="xgrammar"), ['{"name": "Al", "age": 3}'], ['{"name": "Al", "age": 131}']),
        ({"substring": {"text": "the quick fox", "by": "words"}}, ["quick fox", "the"], ["quic", "the fox", ""]),
        ("substring:the quick fox", ["ick f"], ["the fox", ""]),
        ({"all": {"parts": ["regex:[a-z]+", "substring:the quick fox"]}}, ["uick"], ["the quick", "cat", ""]),
        ("all(regex:[a-z ]{3,9},regex:[^ ]*)", ["abc"], ["ab", "a b c"]),
    ],
    ids=str,
)  # fmt: skip
def test_exactly_the_texts_meant_are_allowed(spec: Any, good: list[str], bad: list[str], accepts: Accepts) -> None:
    if "xgrammar" in str(spec):
        pytest.importorskip("xgrammar")
    for text in good:
        assert accepts(spec, text), text
    for text in bad:
        assert not accepts(spec, text), text


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PERSON}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"name": "Al", "age": 3}}\n</tool_call>'
STOP = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        ({}, ["", "No call.", CALL, f"Let me see. {CALL}", f"{CALL}\n{STOP}", "a < b"], ["<tool_call>x", f"x {CALL}y"]),
        ({"choose": "required"}, [CALL, STOP, CALL + CALL], ["", "No call."]),
        ({"choose": "required", "several": False}, [CALL, STOP], [CALL + CALL]),
        ({"choose": "stop"}, [STOP], [CALL, STOP + STOP]),
        ({"begin": "[", "end": "]", "whitespace": "compact"}, ['[{"name":"stop","arguments":{}}]'], ["[1]"]),
    ],
)
def test_tool_calls(options: dict[str, Any], good: list[str], bad: list[str], accepts: Accepts) -> None:
    spec = {"tool": {"tools": [WEATHER, {"name": "stop"}], **options}}
    for text in good:
        assert accepts(spec, text), text
    for text in bad:
        assert not accepts(spec, text), text


def test_values_of_answers() -> None:
    tools = part("constrain", {"tool": {"tools": [WEATHER, Person]}})
    call = {"name": "weather", "arguments": {"name": "Al", "age": 3}}
    assert tools.value(f"See: {CALL}") == [call]  # type: ignore[attr-defined]
    assert tools.value("Nothing.") == []  # type: ignore[attr-defined]
    made = tools.value(CALL.replace('"weather"', '"Person"'))  # type: ignore[attr-defined]
    assert made == [{"name": "Person", "arguments": Person(name="Al", age=3)}]
    person: Any = part("constrain", Person)
    assert person.value('{"name": "Al", "age": 3}') == Person(name="Al", age=3)
    assert person.value('{"name": "Al", "a') is None
    assert person.value('{"name": "Al", "a', whole=False) == {"name": "Al"}
    assert person.value('{"name": "A', whole=False) == {"name": "A"}
    with pytest.raises(ValueError, match="age"):
        person.value('{"name": "Al", "age": -1}')
    assert part("constrain", Point).value('{"x": 1, "y": 2}') == Point(1, 2)  # type: ignore[attr-defined]
    assert part("constrain", Colour).value('"red"') is Colour.RED  # type: ignore[attr-defined]
    assert part("constrain", "regex:a").value("a") is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (js({"properties": {"a": {"items": {"uniqueItems": True}}}}), '#/properties/a/items.*"uniqueItems"'),
        (js({"$ref": "#/$defs/a", "$defs": {"a": {"not": {}}}}), r'#/\$defs/a: .*"not"'),
        (js({"not": {}, "x-guidance": {"lenient": True}}), '"not"'),
        (js({"oneOf": [{"minimum": 1}, {"maximum": 5}], "x-guidance": {"coerce_one_of": True}}), "oneOf"),
        (js({"$ref": "http://example.com/a.json"}), "leads out of the schema, and nothing is fetched"),
        (js({"items": {"type": "string", "format": "topic"}}), "#/items: Unknown format: topic"),
        (js({"type": "string", "pattern": "(?=a)b"}), "pattern: .*look-around"),
        (js({"type": "strin"}), "Invalid type: strin"),
        (js({"enum": []}), "Unsatisfiable"),
        (js({"type": "integer", "minimum": 5, "maximum": 3}), "Unsatisfiable"),
        (js({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}), "no text satisfies it"),
        (js(False), "a JSON schema is an object"),
        (js(3), "no JSON schema of 3"),
        (js("no/such.json"), "no such file: no/such.json"),
        (js('{"type": '), "no JSON"),
        (js({"default": float("nan")}), "no JSON"),
        (js({"not": {}}, engine="xgrammar"), "#: not is not enforced by xgrammar"),
        (js(PERSON, engine="xgrammar", whitespace="any"), "takes whitespace=spaced or compact"),
        ("lark:start: x", "unknown name"),
        ("lark:no.lark", "no such file"),
        ("gbnf:root ::= x", "no rule"),
        ("regex:(?=a)b", "look-around"),
        ({"tool": {"tools": [{"name": "a", "parameters": {"not": {}}}]}}, "tool 'a'.*\"not\""),
        ({"tool": {"tools": [{"name": "a"}, {"name": "a"}]}}, "two tools are called 'a'"),
        ({"tool": {"tools": [{"name": "a"}], "choose": "b"}}, "auto, required or one of a"),
        ({"tool": {"tools": [{"parameters": {}}]}}, "tool 0 has no name"),
        ({"all": {"parts": []}}, "must not be empty"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_before_any_forward(spec: Any, said: str, words: Words) -> None:
    with pytest.raises(ValueError, match=said):
        ready(part("constrain", spec), words)  # type: ignore[arg-type]


def test_formats_are_listed(words: Words, caplog: Any) -> None:
    schema = {"properties": {"a": {"type": "string", "format": "topic"}, "b": {"type": "string", "format": "date"}}}
    with caplog.at_level(logging.WARNING, "decodery"):
        one: Any = part("constrain", {"json-schema": {"schema": schema, "formats": "list"}})
        copy.copy(one).bind(words)
        copy.copy(one).bind(words)
    assert [record.message for record in caplog.records] == [
        "formats that are enforced by their form only: date (#/properties/b)",
        "formats that are enforced not at all: topic (#/properties/a)",
    ]


def test_schemas_from_files_and_recipes(tmp_path: Path, words: Words) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON))
    named: Any = part("constrain", f"json-schema:{file}")
    assert named._schema == PERSON
    inline: Any = Recipe.from_text(f"constrain: {{json-schema: {{schema: {json.dumps(PERSON)}}}}}").constrain
    assert inline._schema == PERSON  # numbers are numbers
    text: Any = part("constrain", f"json-schema:{json.dumps(PERSON)}")
    assert text._schema == PERSON
    grammar = tmp_path / "a.gbnf"
    grammar.write_text('root ::= "a"\n')
    assert "start" in part("constrain", f"gbnf:{grammar}").grammar()  # type: ignore[attr-defined]


def test_masks_are_those_of_a_fresh_start_whatever_was_asked_before(words: Words) -> None:
    """Random walks with side branches whose masks are computed, over a schema that leaves keys and types open."""
    schema = {
        "type": "object",
        "properties": {"shape": {"type": "string"}, "size": {"type": "object"}},
        "required": ["shape"],
    }
    one: Any = copy.copy(part("constrain", js(schema))).bind(words)
    rng = random.Random(3)
    texts = ['{"', '["', '"', '":', ",", ' "', " {", " [", "}", "]", '"):', "1", '"}']
    pieces = {words.tokenizer.tokenize_str(text)[0] for text in texts}
    for _ in range(4):
        state, path = one.start(()), list[int]()
        for _ in range(30):
            following = [t for t in sorted(pieces) if one.mask(state)[t]] or one.mask(state).nonzero()[:, 0].tolist()
            if not following:
                break
            for _ in range(3):
                branch = one.advance(state, rng.choice(following))
                one.mask(branch)
            path.append(rng.choice(following))
            state = one.advance(state, path[-1])
            assert torch.equal(one.mask(state), one.mask(run(one, one.start(()), path, ())))


def test_a_state_that_leads_nowhere_is_a_dead_end_and_its_neighbours_live(words: Words) -> None:
    lark = 'start: "a" loop | "b" "c"\nloop: "x" loop\n'
    one: Any = copy.copy(part("constrain", {"lark": {"text": lark}})).bind(words)
    first = one.start(())
    a, b = (words.tokenizer.tokenize_str(letter)[0] for letter in "ab")
    dead, alive = one.advance(first, a), one.advance(first, b)
    if dead is not None:
        for letter in "xxx":
            token = words.tokenizer.tokenize_str(letter)[0]
            dead = one.advance(dead, token) if dead is not None else None
            assert dead is None or not one.may_end(dead)
    assert one.mask(alive).sum() == 1
    assert one.complete(one.advance(alive, words.tokenizer.tokenize_str("c")[0]))


def test_an_answer_that_is_whole_ends_without_an_end_token() -> None:
    from decodery.core.chooser import Seeded
    from decodery.core.stop import Stop
    from decodery.run.crew import steps
    from decodery.run.loop import launch

    toy = ToyModel()
    for spec, reason in (("choice:[abc]", "stop"), ("all(choice:[ab],choice:[ac])", "dead_end")):
        session, stop = toy.session([0, 1]), Stop(max_new_tokens=9)
        list(steps(launch(build(Recipe.of(constrain=spec), toy), session, Seeded(0), stop)))
        assert stop.reason == reason


def test_a_tree_is_walked_as_its_paths_are(words: Words) -> None:
    one: Any = copy.copy(part("constrain", js(PERSON))).bind(words)
    state = run(one, one.start(()), words.tokenizer.tokenize_str('{"name": "'), words.eos)
    tree = TokenTree()
    for text in ('Al", "age": 12}', 'Bo", "other', 'Al", "age": 7'):
        node = ROOT
        for token in words.tokenizer.tokenize_str(text):
            node = tree.child(node, token) if tree.child(node, token) is not None else tree.add(token, node)  # type: ignore[assignment]
    states = walk(one, state, tree, words.eos)
    found = masks(one, states, words.eos)
    ghosts = [tree.tokens[node] for node in range(len(tree)) if tree.ghost[node]]
    assert ghosts
    assert words.tokenizer.decode_str(ghosts).startswith("other") or "other" in words.tokenizer.decode_str(ghosts)
    for node, mask in zip([ROOT, *tree.live()], found, strict=True):
        alone = run(one, one.start(()), words.tokenizer.tokenize_str('{"name": "'), words.eos)
        alone = run(one, alone, tree.words(node) if node != ROOT else (), words.eos)
        again = masks(one, [alone], words.eos)[0]
        assert mask is not None
        assert again is not None
        assert torch.equal(mask, again)


def test_dataclass_fields_are_what_the_documentation_says() -> None:
    assert [f.name for f in dataclasses.fields(part("constrain", Point))] == [
        "schema",
        "whitespace",
        "formats",
        "engine",
    ]
