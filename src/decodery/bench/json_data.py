"""Schemas and instances of the JSON benchmarks, below ``DECODERY_DATA``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from decodery.bench.data import data_dir
from decodery.core.errors import DecoderyError

SETS = {
    "jsonschemabench": "data in github.com/guidance-ai/jsonschemabench",
    "maskbench": "maskbench/data in github.com/guidance-ai/jsonschemabench",
    "json-schema-test-suite": "github.com/json-schema-org/JSON-Schema-Test-Suite",
}
FORMAT_DRAFTS = ("draft2020-12", "draft7")


class Instance(NamedTuple):
    """A value, whether the schema describes it, and what it is about."""

    value: Any
    valid: bool
    about: str = ""


class Case(NamedTuple):
    """A schema with instances of it; ``group``: what figures are grouped by."""

    name: str
    group: str
    schema: Any
    instances: Sequence[Instance] = ()


def folder(name: str) -> Path:
    """Where a data set lies. Raises ``DecoderyError`` with where to get it."""
    path = data_dir() / name
    if not path.is_dir():
        raise DecoderyError(f"no such folder: {path}. Get it from {SETS[name]} and set DECODERY_DATA")
    return path


def spread(cases: Sequence[Case], limit: int | None) -> list[Case]:
    """At most ``limit`` of them, spread evenly."""
    if limit is None or limit >= len(cases):
        return list(cases)
    return [cases[i * len(cases) // limit] for i in range(limit)]


def schemas() -> list[Case]:
    """JSONSchemaBench: schemas without instances, by split."""
    return [
        Case(file.name, file.parent.name, json.loads(file.read_text()))
        for file in sorted(folder("jsonschemabench").glob("*/*.json"))
    ]


def maskbench() -> list[Case]:
    """MaskBench: schemas with valid and invalid instances, by split."""
    found = []
    for file in sorted(folder("maskbench").glob("*.json")):
        told = json.loads(file.read_text())
        instances = [Instance(one["data"], one["valid"]) for one in told["tests"]]
        found.append(Case(file.name, file.name.partition("---")[0], told["schema"], instances))
    return found


def test_suite() -> Iterator[Case]:
    """The JSON Schema Test Suite, drafts 7 and 2020-12, formats included; by file."""
    root = folder("json-schema-test-suite") / "tests"
    for draft in FORMAT_DRAFTS:
        for file in sorted((root / draft).glob("*.json")) + sorted(
            (root / draft / "optional" / "format").glob("*.json")
        ):
            for group in json.loads(file.read_text()):
                instances = [Instance(t["data"], t["valid"], t["description"]) for t in group["tests"]]
                yield Case(
                    group["description"], str(file.relative_to(root).with_suffix("")), group["schema"], instances
                )
