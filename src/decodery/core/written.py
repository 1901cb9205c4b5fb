"""Text as a user wrote it: what a value means is decided where the parameter's type is known, not where it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from decodery.core.errors import DecoderyError

INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.?(inf|infinity)|\.?nan", re.IGNORECASE)
RANGE = re.compile(r"([0-9]+)-([0-9]+)")
WORDS = {"true": True, "false": False, "none": None, "null": None, "~": None, "": None}
TAGS = ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
LONGEST_RANGE = 1 << 16
PAIRS = {"]": "[", "}": "{", ")": "("}


class Written(str):
    """A value that was written without quotes, and may mean a number, a truth value or nothing, or simply be this text."""

    __slots__ = ()


def resolved(value: Any) -> Any:
    """What a ``Written`` means to a parameter that is no text, by the core schema of YAML 1.2; others stay as they are."""
    if not isinstance(value, Written):
        return value
    text = value.strip()
    try:
        if INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if REAL.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:  # Python refuses integers of more than 4300 digits
        return str(value)
    return WORDS.get(text.lower(), str(value))


def plain(value: Any) -> Any:
    """A value with the texts in it as they were written."""
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, str) else value


def read(text: str) -> Any:
    """One value of a spec: a text in double quotes is that text, anything else is ``Written``."""
    if text.startswith('"'):
        try:
            if isinstance(value := json.loads(text), str):
                return value
        except json.JSONDecodeError:
            pass
    return Written(text)


def listed(value: Any) -> Any:
    """``"[a, b]"`` -> its items; what is no list in brackets stays as it is."""
    if isinstance(value, Written) and (text := value.strip()).startswith("[") and text.endswith("]"):
        return [read(item.strip()) for item in split(text[1:-1])]
    return value


def ranged(value: Any) -> Any:
    """A list of integers in which ``a-b`` stands for all from a to b."""
    if not isinstance(value, list):
        return value
    found: list[Any] = []
    for item in value:
        match = RANGE.fullmatch(item.strip()) if isinstance(item, Written) else None
        low, high = map(int, match.groups()) if match else (1, 0)
        if high - low >= LONGEST_RANGE:
            raise DecoderyError(f"the range {item} is too long; it may have {LONGEST_RANGE} numbers")
        found += range(low, high + 1) if low <= high else [item]
    return found


def mapped(value: Any) -> Any:
    """``"{key: value}"`` in YAML or JSON -> a dictionary; anything else stays as it is."""
    return from_yaml(value) if isinstance(value, Written) and value.strip().startswith("{") else value


def amount(plan: str) -> tuple[str, int]:
    """How much to draft, as it is written: "auto", "off" or "fixed:N" -> its kind and N. Raises ``DecoderyError``."""
    kind, colon, number = plan.partition(":")
    if (kind in ("auto", "off") and not colon) or (kind == "fixed" and number.isdecimal()):
        return kind, int(number or 0)
    raise DecoderyError(f"plan is auto, fixed:N (N draft nodes at most) or off, not {plan!r}")


def split(text: str) -> list[str]:
    """The items between commas; commas within double quotes or a pair of brackets part nothing. Empty items are dropped."""
    inside = _inside(text)
    ends = [at for at, char in enumerate(text) if char == "," and not inside[at]]
    items = [text[start:end] for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)]
    return [item for item in items if item.strip()]


def _inside(text: str) -> list[bool]:
    """Whether each place lies within quotes or brackets; a bracket without its partner is a character like others."""
    inside = [False] * len(text)
    opened: list[tuple[str, int]] = []
    at, begins = 0, True
    while at < len(text):
        char = text[at]
        if char == '"' and begins and (closed := re.compile(r'"(\\.|[^"\\])*"').match(text, at)):
            inside[at : closed.end()] = [True] * (closed.end() - at)
            at, begins = closed.end(), False
            continue
        if char in PAIRS.values():
            opened.append((char, at))
        elif char in PAIRS and (partner := next((o for o in reversed(opened) if o[0] == PAIRS[char]), None)):
            del opened[opened.index(partner) :]
            inside[partner[1] : at] = [True] * (at - partner[1])
        begins = char in ",[{(:=" or (begins and char.isspace())
        at += 1
    return inside


def from_yaml(text: str) -> Any:
    """YAML or JSON with its scalars as they were written: plain ones are ``Written``, quoted ones are text."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, {})
    except yaml.YAMLError as error:
        raise DecoderyError(f"this is not YAML or JSON: {error}") from error
    except RecursionError as error:
        raise DecoderyError("this YAML is nested too deeply to be read") from error


def _value(node: yaml.Node, known: dict[int, Any]) -> Any:
    """A node's value; ``known`` holds those of anchors, so that many references to one cost nothing."""
    if id(node) in known:
        return known[id(node)]
    if node.tag.removeprefix("tag:yaml.org,2002:") not in TAGS:
        raise DecoderyError(f"a recipe holds texts, numbers, lists and mappings, not {node.tag}")
    value: Any
    if isinstance(node, yaml.MappingNode):
        value = {}
        for key, entry in node.value:
            name = _value(key, known)
            if not isinstance(name, Hashable):
                raise DecoderyError(f"the names in a recipe are texts or numbers, not {plain(name)!r}")
            if name in value:
                raise DecoderyError(f"{name!s} stands twice in {plain([*value])}; keep one of them")
            value[name] = _value(entry, known)
    elif isinstance(node, yaml.SequenceNode):
        value = [_value(item, known) for item in node.value]
    else:
        quoted = isinstance(node, yaml.ScalarNode) and node.style
        value = str(node.value) if quoted else Written(node.value)
    known[id(node)] = value
    return value
