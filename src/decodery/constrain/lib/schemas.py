"""JSON schemas: reading them from what a user has, as grammars of llguidance, and where one cannot be enforced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, Literal, NamedTuple

import llguidance
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import from_json

from decodery.constrain.lib.files import told
from decodery.constrain.lib.matcher import plain
from decodery.core.written import resolved

Whitespace = Literal["spaced", "compact", "lines", "any"]
"""Between the parts of JSON: one space behind ``,`` and ``:`` as Python writes it; nothing; that or line breaks with up to
24 spaces; whatever the standard allows."""
WHITESPACE: dict[str, dict[str, Any]] = {
    "spaced": {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False, "whitespace_pattern": None},
    "compact": {"item_separator": ",", "key_separator": ":", "whitespace_flexible": False, "whitespace_pattern": None},
    "lines": {"item_separator": ",", "key_separator": ":", "whitespace_pattern": r" |\n {0,24}"},
    "any": {"item_separator": ",", "key_separator": ":", "whitespace_flexible": True, "whitespace_pattern": None},
}
FORMATS = ("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
"""Formats that llguidance enforces: by their form, so that a 30th of February passes."""
NESTED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames")
PATIENCE = 1.0
"""Seconds that looking for the place of an error may take."""


class Schema(NamedTuple):
    """A JSON schema, and what validates an answer where it was made of a Python type."""

    entries: dict[str, Any]
    adapter: TypeAdapter[Any] | None = None


def read_schema(given: Any) -> Schema:
    """A schema from a mapping, a text in JSON, a file, or a type: a Pydantic model, a dataclass, a TypedDict, an Enum ...

    Raises ``ValueError`` saying what it is instead.
    """
    adapter = None
    if isinstance(given, str):
        given = _loaded(told(given, ("{", "true", "false")))
    elif not isinstance(given, (Mapping, bool)):
        try:
            adapter = given if isinstance(given, TypeAdapter) else TypeAdapter(given)
            given = closed(adapter.json_schema())
        except PydanticUserError as error:
            raise ValueError(f"pydantic makes no JSON schema of {given!r}: {error.message}") from error
    if given is True:
        given = {}
    if not isinstance(given, Mapping):
        raise ValueError(f'a JSON schema is an object such as {{"type": "string"}}, not {given!r:.60}')
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the schema is no JSON: {error}") from error
    return Schema(meant(given), adapter)


def closed(schema: Any) -> Any:
    """The schema of a type without properties that the type does not have: it would pass over them, and models invent many.

    A type that takes others says so (Pydantic's ``extra="allow"``).
    """
    if not isinstance(schema, Mapping):
        return schema
    own = dict(schema)
    for key, entry in schema.items():
        if key in NESTED and isinstance(entry, Mapping):
            own[key] = {name: closed(inner) for name, inner in entry.items()}
        elif key in (*LISTED, *SINGLE):
            own[key] = [closed(one) for one in entry] if isinstance(entry, list) else closed(entry)
    return {"additionalProperties": False} | own if isinstance(own.get("properties"), Mapping) else own


def grammar_of(schema: Mapping[str, Any], whitespace: Whitespace) -> str:
    """The schema as a grammar of llguidance that enforces all of it or is refused."""
    return str(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=rules_of(whitespace)))


def rules_of(whitespace: Whitespace) -> Any:
    """The options of llguidance under which nothing is weakened, whatever the schema itself says."""
    return {"lenient": False, "coerce_one_of": False, **WHITESPACE[whitespace]}


def why_refused(schema: Mapping[str, Any], error: str) -> str:
    """The sentence about a schema that llguidance refuses, with the place where it does."""
    until = monotonic() + PATIENCE
    place = next(_places(schema, schema, "#", error, until), "#")
    if error.startswith("Resource "):
        reference = error.split(" is not")[0].removeprefix("Resource ")
        error = f"the reference {reference} leads out of the schema, and nothing is fetched"
    elif error.startswith("regex parse error"):
        error = f"pattern: {error}"
    elif error.startswith("Unknown format"):
        error += f" (known: {', '.join(FORMATS)}); formats=list leaves it out"
    return f"the schema cannot be enforced at {place}: {error}"


def formats_in(schema: Any, place: str = "#") -> Iterator[tuple[str, str]]:
    """The formats that a schema asks for, each with its place."""
    if isinstance(schema, Mapping) and isinstance(schema.get("format"), str):
        yield schema["format"], place
    for name, inner in inner_schemas(schema):
        yield from formats_in(inner, f"{place}/{name}")


def without_unknown_formats(schema: Any) -> Any:
    """The schema without the formats that cannot be enforced."""
    if isinstance(schema, Mapping):
        unknown = isinstance(form := schema.get("format"), str) and form not in FORMATS
        return {k: without_unknown_formats(v) for k, v in schema.items() if not (unknown and k == "format")}
    return [without_unknown_formats(one) for one in schema] if isinstance(schema, list) else schema


def value_of(text: str, whole: bool, adapter: TypeAdapter[Any] | None = None) -> Any:
    """The value of a JSON text, or what can be read of its beginning; None where that is nothing.

    Raises pydantic's ``ValidationError`` where a whole JSON text is none of the adapter's values.
    """
    try:
        if not whole:
            return from_json(text, allow_partial="trailing-strings")
        return json.loads(text) if adapter is None else adapter.validate_json(text)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            return None
        raise
    except (ValueError, RecursionError):
        return None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the schema is no JSON: {error}") from error


def meant(value: Any) -> Any:
    """Numbers and truth values of a recipe, which are texts until somebody knows what they stand for."""
    if isinstance(value, Mapping):
        return {str(key): meant(entry) for key, entry in value.items()}
    return [meant(entry) for entry in value] if isinstance(value, list) else resolved(value)


def inner_schemas(schema: Any) -> Iterator[tuple[str, Any]]:
    """The schemas directly inside a schema, with their paths."""
    if not isinstance(schema, Mapping):
        return
    for key in NESTED:
        if isinstance(entries := schema.get(key), Mapping):
            yield from ((f"{key}/{name}", inner) for name, inner in entries.items())
    for key in (*LISTED, "items"):
        if isinstance(several := schema.get(key), list):
            yield from ((f"{key}/{i}", inner) for i, inner in enumerate(several))
    yield from ((key, schema[key]) for key in SINGLE if isinstance(schema.get(key), Mapping))


def _places(root: Mapping[str, Any], schema: Any, place: str, error: str, until: float) -> Iterator[str]:
    """The innermost schemas that are refused with this error by themselves."""
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    for name, inner in inner_schemas(schema):
        if monotonic() > until:
            return
        if isinstance(inner, Mapping) and refusal({**shared, **inner}) == error:
            yield from _places(root, inner, f"{place}/{name}", error, until)
    yield place


def refusal(schema: Mapping[str, Any]) -> str:
    """Why llguidance refuses a schema, in one line; empty where it does not."""
    return plain(llguidance.LLMatcher.validate_grammar(grammar_of(schema, "any")))
