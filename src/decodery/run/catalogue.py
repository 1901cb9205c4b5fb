"""What there is to say of each part, kept in a file so that nobody imports all of them to list them."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from decodery.run.registry import Entry

FILE = Path(__file__).with_name("catalogue.json")
"""Written by ``make docs``: the facts of the package's own parts by ``role/name``."""


def facts(entry: Entry) -> dict[str, Any]:
    """Role, name, one line, paper, whether it is lossless, and what a model must be able to do for it."""
    known = {} if entry.outside else _written().get(f"{entry.role}/{entry.name}", {})
    return known or examined(entry)


def examined(entry: Entry) -> dict[str, Any]:
    """The facts as the class has them, which is imported for this."""
    from decodery.run.spec import needs_of

    kind = entry.part
    return {
        "role": entry.role,
        "name": entry.name,
        "lossless": kind.lossless,
        "needs": needs_of(entry),
        "what": (kind.__doc__ or "").strip().splitlines()[0],
        "paper": kind.paper,
    }


class Told(NamedTuple):
    """A parameter of a part as people read it."""

    name: str
    kind: str
    default: str
    range: str
    meaning: str


def parameters(kind: Any) -> list[Told]:
    """The parameters of a part; each one's meaning is what the part's docstring says of it."""
    from decodery.core.hints import kind_and_range
    from decodery.core.parameters import default_of, hints_of

    found = []
    for name, hint in hints_of(kind).items():
        typed, limits = kind_and_range(hint, name)
        found.append(Told(name, typed, default_of(kind, name), limits, _meaning(kind.__doc__ or "", name)))
    return found


def example(entry: Entry) -> str:
    """A command that uses a part; empty where the command line cannot name it, for it takes objects of Python."""
    kind: Any = entry.part
    if not kind.example and any(told.default == "required" for told in parameters(kind)):
        return ""
    return (
        f"decodery run {shlex.quote('Why is the sky blue?')} --{entry.role} {shlex.quote(kind.example or entry.name)}"
    )


def _meaning(doc: str, name: str) -> str:
    """The sentence of a docstring that begins with a parameter's name, or else the first that holds it as code."""
    sentences = re.split(r"(?<=[.;])\s+(?=``)|(?<=\.)\s+", " ".join(doc.split()))
    for pattern in (rf"``{name}``", rf".*``[^`]*\b{name}\b[^`]*``"):
        for sentence in sentences:
            if re.match(pattern, sentence):
                return re.sub(rf"^``{name}``: ", "", sentence).replace("``", "`")
    return ""


@cache
def _written() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found
