"""What there is to say of each part, kept in a file so that nobody imports all of them to list them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

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


@cache
def _written() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found
