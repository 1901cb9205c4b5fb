"""Whatever schema, grammar or pattern comes: it is refused with a sentence, or what it lets through is valid; never a hang."""

from __future__ import annotations

import copy
import json
import random
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodery.core.part import ready
from decodery.model.toy import tokenizer_of
from decodery.run.spec import part

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install jsonschema")
LONGEST = 5.0
"""Seconds that any of it may take."""


class Bytes:
    """A tokenizer of single bytes and a few words; with an end of sequence or without."""

    def __init__(self, ends: bool) -> None:
        words = [bytes([i]) for i in range(256)] + [b'{"', b'":', b'",', b"true", b"12", "é".encode(), b"\xe3\x81"]
        self.eos = frozenset({len(words)}) if ends else frozenset()
        self.vocab = len(words) + ends
        self._words = tokenizer_of([*words, b""] if ends else words, sorted(self.eos))

    def matcher_tokenizer(self) -> Any:
        return self._words


MODELS = {"ends": Bytes(True), "never ends": Bytes(False)}
NAMES = st.sampled_from(["a", "b", "ü", 'q"', ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-50, 50) | st.sampled_from(["", "x", "é\n", '"']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
PLAIN = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean", "null", "strin"])}),
    st.fixed_dictionaries({"const": VALUES}),
    st.fixed_dictionaries({"enum": st.lists(VALUES, max_size=3)}),
    st.builds(
        lambda low, high: {"type": "integer", "minimum": low, "maximum": high}, st.integers(-9, 9), st.integers(-9, 9)
    ),
    st.builds(
        lambda low, high: {"type": "string", "minLength": low, "maxLength": high}, st.integers(-1, 3), st.integers(0, 4)
    ),
    st.fixed_dictionaries(
        {"type": st.just("string"), "pattern": st.sampled_from(["^a+$", "(?=x)", "[", "^(a|b){2}$"])}
    ),
    st.fixed_dictionaries({"$ref": st.sampled_from(["#", "#/$defs/a", "http://example.com/x", "#/nowhere"])}),
    st.just({}),
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda own, needed, more: {
                "type": "object",
                "properties": own,
                "required": needed,
                "additionalProperties": more,
            },
            st.dictionaries(NAMES, inner, max_size=3),
            st.lists(NAMES, max_size=2, unique=True),
            st.booleans(),
        ),
        st.builds(
            lambda items, low, high: {"type": "array", "items": items, "minItems": low, "maxItems": high},
            inner,
            st.integers(0, 2),
            st.integers(0, 3),
        ),
        st.builds(
            lambda several, how: {how: several},
            st.lists(inner, max_size=3),
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
        ),
        st.builds(lambda one: {"not": one}, inner),
    )


SCHEMAS = st.builds(
    lambda schema, other: {**schema, "$defs": {"a": other}}, st.recursive(PLAIN, larger, max_leaves=6), PLAIN
)


def written(constraint: Any, model: Any, rng: random.Random, most: int = 80) -> str | None:
    """A random text that the masks allow; None where it did not end in time. What is near an end is preferred."""
    state, tokens = constraint.start(()), []
    for _ in range(most):
        allowed = constraint.mask(state).nonzero()[:, 0].tolist()
        if constraint.may_end(state) and (not allowed or rng.random() < 0.5):
            return bytes(b for t in tokens for b in model.matcher_tokenizer().decode_bytes([t])).decode(
                errors="replace"
            )
        if not allowed:
            return None
        closing = [t for t in allowed if t < 256 and t in b'"}]1a,:{[']
        tokens.append(rng.choice(closing if closing and rng.random() < 0.8 else allowed))
        state = constraint.advance(state, tokens[-1])
        assert state is not None
    return None


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMAS, seed=st.integers(0, 5), whitespace=st.sampled_from(["spaced", "compact", "lines", "any"]))
def test_schemas(name: str, schema: Any, seed: int, whitespace: str) -> None:
    model: Any = MODELS[name]
    began = perf_counter()
    try:
        constraint: Any = ready(part("constrain", {"json-schema": {"schema": schema, "whitespace": whitespace}}), model)
    except ValueError as error:
        assert str(error)
        assert perf_counter() - began < LONGEST
        return
    text = written(constraint, model, random.Random(seed))
    assert perf_counter() - began < LONGEST
    if text is not None:
        jsonschema.validators.validator_for(schema)(schema).validate(json.loads(text))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(schema=SCHEMAS, value=VALUES)
def test_what_a_schema_describes_not_is_not_let_through(schema: Any, value: Any) -> None:
    model: Any = MODELS["ends"]
    try:
        constraint: Any = ready(part("constrain", {"json-schema": {"schema": schema}}), model)
    except ValueError:
        return
    state = constraint.start(())
    for byte in json.dumps(value, ensure_ascii=False).encode():
        state = constraint.advance(state, byte) if state is not None else None
    if state is not None and constraint.may_end(state):
        jsonschema.validators.validator_for(schema)(schema).validate(value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    text=st.text(st.sampled_from('root:=" ab|()*+?{},[]^-\\\n#.1x_<>'), max_size=40),
    role=st.sampled_from(["gbnf", "lark"]),
)
def test_grammars(text: str, role: str) -> None:
    begins = "root ::= " if role == "gbnf" else "start: "
    began = perf_counter()
    try:
        constraint: Any = ready(part("constrain", {role: {"text": begins + text}}), MODELS["ends"])  # type: ignore[type-var]
        written(constraint, MODELS["ends"], random.Random(0), 20)
    except ValueError as error:
        assert str(error)
    assert perf_counter() - began < LONGEST


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*b", "(a|b)*a(a|b){30}", "(a{1000}){1000}", "(((a?){50}a{50})){50}", "a{100000}", "(a|aa)+$", "(" * 999 + ")" * 999],
    ids=lambda pattern: pattern[:20],
)  # fmt: skip
def test_patterns_that_are_catastrophes_elsewhere(pattern: str) -> None:
    began = perf_counter()
    try:
        constraint: Any = ready(part("constrain", {"regex": {"pattern": pattern}}), MODELS["ends"])  # type: ignore[type-var]
        written(constraint, MODELS["ends"], random.Random(0), 40)
    except ValueError as error:
        assert str(error)
    assert perf_counter() - began < LONGEST


def test_a_schema_of_a_megabyte_is_compiled_or_refused_in_five_seconds() -> None:
    entry = {
        "type": "object",
        "properties": {f"key{i}": {"enum": [f"v{i}", i]} for i in range(20)},
        "required": ["key1"],
    }
    schema = {"type": "object", "properties": {f"part{i}": copy.deepcopy(entry) for i in range(1600)}}
    assert len(json.dumps(schema)) > 1 << 20
    began = perf_counter()
    try:
        ready(part("constrain", {"json-schema": {"schema": schema}}), MODELS["ends"])  # type: ignore[type-var]
    except ValueError as error:
        assert str(error)
    assert perf_counter() - began < LONGEST


def test_schemas_nested_deeply_are_refused_or_followed() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    try:
        ready(part("constrain", {"json-schema": {"schema": schema}}), MODELS["ends"])  # type: ignore[type-var]
    except ValueError as error:
        assert str(error)
