"""A recipe: which parts decode, as text, as a dictionary, or as objects; the three say the same."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from decodery.core.errors import DecoderyError, UnknownPart
from decodery.core.roles import Constraint, Drafter, Guide, Part, Search, Verifier
from decodery.run.registry import ROLES, find, name_of

Spec = str | Mapping[str, Any] | Part
"""``"ngram:max=4,width=3"``, ``{"ngram": {"max": 4, "width": 3}}`` or ``NGram(max=4, width=3)``.

A part made of parts: ``"mix(ngram:max=4,recycling):nodes=15"`` or ``{"mix": {"parts": [...], "nodes": 15}}``."""


ROLE_OF: dict[Any, str] = {
    Drafter: "draft",
    Verifier: "verify",
    Guide: "guide",
    Constraint: "constrain",
    Search: "search",
}


@dataclass(frozen=True)
class Recipe:
    """The chosen parts. ``verify`` None: the fast path for greedy laws, else the residual rule."""

    draft: Drafter
    verify: Verifier | None
    guide: tuple[Guide, ...]
    constrain: Constraint
    search: Search | None

    @classmethod
    def of(
        cls,
        draft: Spec = "none",
        verify: Spec | None = None,
        guide: Spec | Sequence[Spec] = (),
        constrain: Spec = "none",
        search: Spec | None = None,
    ) -> Recipe:
        """Parts from specs."""
        guides = [guide] if isinstance(guide, (str, Mapping, Part)) else guide
        return cls(
            typing.cast(Drafter, part("draft", draft)),
            None if verify is None else typing.cast(Verifier, part("verify", verify)),
            tuple(typing.cast(Guide, part("guide", g)) for g in guides),
            typing.cast(Constraint, part("constrain", constrain)),
            None if search is None else typing.cast(Search, part("search", search)),
        )

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Recipe:
        """The inverse of ``to_dict``; unknown entries are errors."""
        if unknown := entries.keys() - {field.name for field in dataclasses.fields(cls)}:
            raise DecoderyError(f"a recipe has no entry {sorted(unknown)[0]!r}; entries: {', '.join(ROLES)}")
        return cls.of(**{role: spec for role, spec in entries.items() if spec is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML; what is left at its default is left out."""
        chosen: dict[str, Any] = {
            "draft": describe(self.draft),
            "verify": None if self.verify is None else describe(self.verify),
            "guide": [describe(guide) for guide in self.guide],
            "constrain": describe(self.constrain),
            "search": None if self.search is None else describe(self.search),
        }
        return {role: spec for role, spec in chosen.items() if spec not in (None, [], "none")}

    @classmethod
    def from_text(cls, text: str) -> Recipe:
        """A recipe in YAML or JSON."""
        try:
            entries = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise DecoderyError(f"the recipe is not YAML or JSON: {error}") from error
        if not isinstance(entries, dict):
            raise DecoderyError(f"a recipe is a mapping such as 'draft: ngram', not {type(entries).__name__}")
        return cls.from_dict(entries)

    def to_text(self) -> str:
        """The recipe in YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def part(role: str, spec: Spec) -> Part:
    """A part of this role from its spec. Raises ``UnknownPart`` or ``DecoderyError`` naming what is wrong."""
    if isinstance(spec, Part):
        return spec
    name, _, rest = _head(spec) if isinstance(spec, str) else (next(iter(spec), ""), None, "")
    kind = find(role, name.strip()).part
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    hints = typing.get_type_hints(kind)
    if not isinstance(spec, str):
        parameters = _single(role, spec)
    elif rest and [hints[field] for field in fields] == [str]:
        parameters = {
            "": rest.removeprefix(f"{next(iter(fields))}=")
        }  # one text, such as a regular expression: as it is
    else:
        _, parameters = parse(spec, role)
    if "" in parameters:  # "temperature:0.7" means the first parameter
        parameters[next(iter(fields), "")] = parameters.pop("")
    if unknown := parameters.keys() - fields.keys():
        has = f"it has {', '.join(fields)}" if fields else "it has none"
        raise UnknownPart(f"{role} part {name!r} has no parameter {sorted(unknown)[0]!r}; {has}")
    values = {key: _coerce(value, hints[key], f"{name}:{key}") for key, value in parameters.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise DecoderyError(f"{role} part {name!r}: {error}") from error


def describe(part: Part) -> str | dict[str, dict[str, Any]]:
    """The spec of a part: its name, and the parameters that differ from their defaults."""
    _, name = name_of(part)
    changed = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.init and value != _default(field):
            changed[field.name] = _plain(value)
    return {name: changed} if changed else name


def parse(spec: str, role: str = "draft") -> tuple[str, dict[str, Any]]:
    """``"name:key=value,key=value"`` -> name and values; lists in brackets, ``a-b`` in a list is a range of integers.

    A single value without a key is booked under "", the first parameter; so are the specs of a part made of other parts,
    ``"name(spec,spec):key=value"``.
    """
    name, inner, rest = _head(spec)
    parameters: dict[str, Any] = {} if inner is None else {"": specs(inner, role)}
    for item in _split(rest):
        key, equals, value = item.partition("=")
        if not equals or not key.strip().isidentifier():
            key, value = "", item
        if key.strip() in parameters:
            raise DecoderyError(f"{spec!r} gives {key.strip() or 'the first parameter'} twice")
        parameters[key.strip()] = _value(value.strip())
    return name.strip(), parameters


def specs(text: str, role: str = "draft", also: str = "") -> list[str]:
    """``"none,ngram:max=4,width=3"`` -> specs; what names no part of the role, nor ``also``, continues the parameters
    before it."""
    found: list[str] = []
    for item in map(str.strip, _split(text)):
        if found and re.split("[:(]", item)[0] not in (*ROLES[role], also) and ":" in found[-1]:
            found[-1] += f",{item}"
        else:
            found.append(item)
    if not found:
        raise DecoderyError(f"name {role}ers, separated by commas: {', '.join(ROLES[role])}")
    return found


def _head(spec: str) -> tuple[str, str | None, str]:
    """``"name(inner):rest"`` -> its three parts; inner is None where no bracket follows the name."""
    spec = spec.strip()
    name = re.split("[:(]", spec)[0]
    if not spec[len(name) :].startswith("("):
        return name, None, spec[len(name) + 1 :]
    inner, closed, tail = spec[len(name) + 1 :].rpartition(")")
    if not closed or (tail and not tail.startswith(":")):
        raise DecoderyError(f"{spec!r} is not of the form name(part,part):key=value; check its brackets")
    return name, inner, tail[1:]


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and braces."""
    items, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "[{(") - (char in "]})")
        if char == "," and depth == 0:
            items.append(text[start:i])
            start = i + 1
    return [item for item in [*items, text[start:]] if item.strip()]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    if text.startswith("[") and text.endswith("]"):
        values: list[Any] = []
        for item in _split(text[1:-1]):
            low, dash, high = item.strip().partition("-")
            if dash and low.isdigit() and high.isdigit():
                values += range(int(low), int(high) + 1)
            else:
                values.append(_value(item.strip()))
        return values
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the annotated type, or an error that names the parameter."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return None if option is type(None) and value is None else _coerce(value, option, where)
            except DecoderyError:
                continue
    elif hint in ROLE_OF and isinstance(value, (str, Mapping, Part)):
        return part(ROLE_OF[hint], value)
    elif origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(item, arguments[0], where) for item in value)
    elif origin is dict and isinstance(value, Mapping):
        return {_coerce(_key(k), arguments[0], where): _coerce(v, arguments[1], where) for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    elif hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    name = getattr(hint, "__name__", str(hint))
    raise DecoderyError(f"{where} must be {name if not arguments else hint}, not {value!r}")


def _plain(value: Any) -> Any:
    """A parameter's value for JSON or YAML."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return describe(value) if isinstance(value, Part) else value


def _key(key: Any) -> Any:
    """JSON writes integer keys as text."""
    return int(key) if isinstance(key, str) and key.lstrip("-").isdigit() else key


def _single(role: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    if len(spec) != 1:
        raise DecoderyError(f"a {role} entry names one part, such as {{'name': {{...}}}}, not {dict(spec)!r}")
    (parameters,) = spec.values()
    if parameters is not None and not isinstance(parameters, Mapping):
        parameters = {"": parameters}
    return dict(parameters or {})


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
