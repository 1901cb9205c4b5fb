"""The language of specs: ``name(spec,spec):key=value,key=value``, and the same as dictionaries and as objects."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from decodery.core.errors import DecoderyError, UnknownPart
from decodery.core.parameters import checked, has_default, hints_of, json_schema, plain_value
from decodery.core.part import Part
from decodery.core.written import Written, from_yaml, plain, read, resolved, split
from decodery.run.outside import target_in
from decodery.run.registry import Entry, find, name_of, names, nearest, role_of, role_of_class

Spec = str | Mapping[str, Any] | Part | type[Any]
"""``"ngram:max=4,width=3"``, ``{"ngram": {"max": 4, "width": 3}}`` or ``NGram(max=4, width=3)``; a constraint may be a Python
type, such as a Pydantic model.

A part made of parts: ``"mix(ngram:max=4,recycling):nodes=15"`` or ``{"mix": {"parts": [...], "nodes": 15}}``. A part from
outside: ``"pkg.mod:Mine:size=3"``. A parameter's type decides how its value is read: for a text it is what was written,
``2.50`` and ``yes`` included. Double quotes keep commas, and spaces at the ends. ``a-b`` in a list of integers is a range.
"""


def part(role: str, spec: Spec) -> Part:
    """A part of this role from its spec. Raises ``UnknownPart`` or ``DecoderyError`` naming what is wrong."""
    if isinstance(spec, Part):
        if (own := role_of_class(type(spec))) != role:
            raise UnknownPart(f"{name_of(spec)[1]!r} is a {own} part, not a {role} part")
        return spec
    if (isinstance(spec, type) or typing.get_origin(spec) is not None) and (of_type := role_of(role).of_type):
        spec = {of_type: {"": spec}}
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        spec = from_yaml(spec)
    name, parameters = (_head(spec, role)[0], {}) if isinstance(spec, str) else _single(spec, role)
    kind: Any = find(role, name).part
    fields = list(hints_of(kind))
    if isinstance(spec, str):
        rest = _head(spec, role)[2]
        # A part with one text, such as a regular expression: it is all that was written behind the colon, as it is.
        whole = {"": rest.removeprefix(f"{fields[0]}=")} if rest and _takes_one_text(kind) else None
        parameters = parse(spec, role)[1] if whole is None else whole
    if "" in parameters:  # "temperature:0.7" means the first parameter
        first = next(iter(fields), "")
        if first and first in parameters:
            raise DecoderyError(f"{spec!r} gives {first} twice")
        parameters[first] = parameters.pop("")
    if unknown := parameters.keys() - {*fields}:
        has = f"it has {', '.join(fields)}" if fields else "it has none"
        missed = min(map(str, unknown))
        raise UnknownPart(f"{role} part {name!r} has no parameter {missed!r}; {has}.{nearest(missed, fields)}")
    for field in fields:
        if field not in parameters and not has_default(kind, field):
            article = "" if field.endswith("s") else "a "
            raise DecoderyError(f"{role} part {name!r} needs {article}{field}: {kind.example or f'{name}:{field}=...'}")
    values = checked(kind, parameters, name, _inner)
    try:
        made: Part = kind(**values)
    except ValueError as error:
        raise DecoderyError(f"{role} part {name!r}: {error}") from error
    return made


def describe(part: Part) -> str | dict[str, dict[str, Any]]:
    """The spec of a part: its name, and the parameters that differ from their defaults."""
    _, name = name_of(part)
    changed = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.init and value != _default(field):
            changed[field.name] = _plain(value)
    return {name: changed} if changed else name


def text_of(part: Part) -> str:
    """The spec of a part as one line of text."""
    described = describe(part)
    if isinstance(described, str):
        return described
    [(name, changed)] = described.items()
    if _takes_one_text(type(part)):
        return f"{name}:{next(iter(changed.values()))}"
    return f"{name}:{','.join(f'{key}={json.dumps(value, default=str)}' for key, value in changed.items())}"


def schema_of(role: str, name: str) -> dict[str, Any]:
    """The JSON schema of a part's parameters."""
    return json_schema(find(role, name).part)


def parse(spec: str, role: str = "draft") -> tuple[str, dict[str, Any]]:
    """``"name:key=value,key=value"`` -> name and values, as they were written.

    A single value without a key is booked under "", the first parameter; so are the specs of a part made of other parts,
    ``"name(spec,spec):key=value"``.
    """
    name, inner, rest = _head(spec, role)
    parameters: dict[str, Any] = {} if inner is None else {"": specs(inner, role)}
    for item in split(rest):
        key, equals, value = item.partition("=")
        if not equals or not key.strip().isidentifier():
            key, value = "", item
        if key.strip() in parameters:
            hint = "" if key else f"; several values are a list in brackets, such as {name}:[{rest}]"
            raise DecoderyError(f"{spec!r} gives {key.strip() or 'the first parameter'} twice{hint}")
        parameters[key.strip()] = read(value.strip())
    return name, parameters


def specs(text: str, role: str = "draft", also: str = "") -> list[str]:
    """``"none,ngram:max=4,width=3"`` -> specs; what names no part of the role, nor ``also``, continues the parameters
    before it."""
    found: list[str] = []
    known = {*names(role), also}
    for item in map(str.strip, split(text)):
        begins = re.split("[:(&@]", item)[0].strip() in known or target_in(item)
        if found and not begins and ":" in found[-1]:
            found[-1] += f",{item}"
        else:
            found.append(item)
    if not found:
        raise DecoderyError(f"name {role}ers, separated by commas: {', '.join(names(role))}")
    return found


def _head(spec: str, role: str) -> tuple[str, str | None, str]:
    """``"name(inner):rest"`` -> its three parts; inner is None where no bracket follows the name."""
    spec = spec.lstrip()
    name = re.split("[:(]", spec)[0]
    if name.strip() not in names(role):
        name = target_in(spec) or name
    tail = spec[len(name) :].lstrip()
    if not tail.startswith("("):
        return name.strip(), None, tail[1:]
    depth, at = 0, -1
    while at + 1 < len(tail) and (depth or at < 0):
        at += 1
        depth += (tail[at] == "(") - (tail[at] == ")")
    inner, rest = tail[1:at], tail[at + 1 :].lstrip()
    if depth or (rest and not rest.startswith(":")):
        raise DecoderyError(f"{spec!r} is not of the form name(part,part):key=value; check its brackets")
    return name.strip(), inner, rest[1:]


def _single(spec: Any, role: str) -> tuple[str, dict[str, Any]]:
    """``{name: parameters}`` -> both; a value that is no mapping is that of the first parameter."""
    if not isinstance(spec, Mapping):
        raise DecoderyError(
            f"a {role} part is named by text, by a mapping or by the part itself, not by {plain(spec)!r}"
        )
    if len(spec) != 1:
        raise DecoderyError(f"a {role} entry names one part, such as {{'name': {{...}}}}, not {plain(spec)!r}")
    [(name, parameters)] = spec.items()
    if parameters is None or (isinstance(parameters, Written) and parameters in ("", "~", "null")):
        parameters = {}
    return str(name).strip(), dict(parameters) if isinstance(parameters, Mapping) else {"": parameters}


def _inner(kind: type[Any], spec: Any) -> Any:
    """A part inside another one from its spec; what is no spec stays as it is, for pydantic to refuse."""
    if isinstance(value := resolved(spec), (int, float)):
        return value
    return part(role_of_class(kind), spec) if isinstance(spec, (str, Mapping)) else spec


def _takes_one_text(kind: Any) -> bool:
    """Whether a text is all that a part has for parameters."""
    hints = list(hints_of(kind).values())
    return len(hints) == 1 and str in (hints[0], *typing.get_args(hints[0])[: typing.get_origin(hints[0]) is Annotated])


def _plain(value: Any) -> Any:
    """A parameter's value for JSON or YAML."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return describe(value) if isinstance(value, Part) else plain_value(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def needs_of(entry: Entry) -> list[str]:
    """What a model must be able to do for this part, under the first of its specimen parameters."""
    specimens: Sequence[Mapping[str, Any]] = getattr(entry.part, "specimens", ({},))
    return sorted(cap.value for cap in part(entry.role, {entry.name: dict(specimens[0])}).needs)
