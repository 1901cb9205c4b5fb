"""What the shell completes: names of parts, their parameters, models, suites. Part files are imported for parameters only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from decodery.run.registry import entries, find, names

Complete = Callable[[str], list[str]]


def specs(role: str) -> Complete:
    """Specs of a role: a name, and behind its colon or a comma the parameters that are not there yet."""

    def complete(typed: str) -> list[str]:
        name, colon, rest = typed.partition(":")
        return _parameters(role, name, rest) if colon else _beginning(typed, names(role))

    return complete


def parts(typed: str) -> list[str]:
    """Parts of any role, with and without it."""
    known = [name for entry in entries() for name in (entry.name, f"{entry.role}/{entry.name}")]
    return _beginning(typed, dict.fromkeys(known))


def roles(typed: str) -> list[str]:
    """The roles."""
    return _beginning(typed, dict.fromkeys(entry.role for entry in entries()))


def models(typed: str) -> list[str]:
    """The demo model, GGUF files, folders that hold a model, and folders on the way to one."""
    folder, _, start = typed.rpartition("/")
    place = Path(folder or ("/" if typed.startswith("/") else ".")).expanduser()
    found = ["smollm2"]
    for path in sorted(place.iterdir()) if place.is_dir() else []:
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            here = f"{typed[: len(typed) - len(start)]}{path.name}"
            if path.suffix == ".gguf" or (path / "config.json").is_file():
                found.append(here)
            elif path.is_dir():
                found.append(f"{here}/")
    return _beginning(typed, found)


def _parameters(role: str, name: str, typed: str) -> list[str]:
    """``NAME:done,par`` -> ``NAME:done,parameter=``; nothing behind a value that is being typed."""
    from decodery.core.parameters import hints_of

    done, comma, last = typed.rpartition(",")
    if "=" in last or name not in names(role):
        return []
    kind: Any = find(role, name).part
    used = set(re.findall(r"(\w+)=", done))
    left = [f"{field}=" for field in hints_of(kind) if field not in used]
    return [f"{name}:{done}{comma}{field}" for field in _beginning(last, left)]


def _beginning(typed: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(typed)]
