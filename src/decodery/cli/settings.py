"""What options are where the command line does not say: the environment's word, then that of the configuration file.

``DECODERY_<OPTION>`` and an entry of the file are written as on the command line; any long name of an option will do.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import typer

from decodery.cli.reading import read
from decodery.core.errors import DecoderyError
from decodery.run.registry import nearest

LOG = logging.getLogger(__name__)
PREFIX = "DECODERY_"
WORD = re.compile(r"\w{2,}")
OTHERS = ("cache", "config", "data", "debug", "laws_seed")
"""What the environment may say that is an option of no command."""
KEY = "decodery.settings"
"""Where the contexts of a call keep its settings."""
TYPED, FROM_ENVIRONMENT, FROM_FILE, LEFT = 3, 2, 1, 0
"""How much a value counts by where it comes from; what was left at its default counts least."""


class Setting(NamedTuple):
    """A value from elsewhere than the command line, where that is, and how much it counts."""

    value: Any
    origin: str
    rank: int


Settings = dict[str, Setting]


def settle(context: typer.Context, file: Path | None) -> None:
    """Read the file, if there is one, and the environment, and make what they say the defaults of all commands."""
    commands: Mapping[str, Any] = context.command.commands  # type: ignore[attr-defined]
    options = options_of(commands)
    found = (_from_file(file, options) if file is not None else {}) | _from_environment(options)
    context.meta[KEY] = found
    values = {name: setting.value for name, setting in found.items()}
    context.default_map = {
        name: {param.name: values[param.name] for param in command.params if param.name in values}
        for name, command in commands.items()
    }


def options_of(commands: Mapping[str, Any]) -> dict[str, Any]:
    """The options of all commands by each of their long names; where two share one, it is that of its own name."""
    params = [p for command in commands.values() for p in command.params if p.param_type_name == "option"]
    known = {param.name: param for param in params if param.name != "help"}
    for param in params:
        for name in param.opts:
            if name.startswith("--") and name != "--help":
                known.setdefault(_plain(name), param)
    return known


def rank(context: typer.Context, name: str) -> int:
    """How much the value of an option counts by where it comes from."""
    source = context.get_parameter_source(name)
    if source is not None and source.name == "DEFAULT_MAP":
        return settings(context)[name].rank
    return TYPED if source is not None and source.name == "COMMANDLINE" else LEFT


def settings(context: typer.Context) -> Settings:
    """The settings of this call."""
    found: Settings = context.meta.get(KEY, {})
    return found


def origin(context: typer.Context, name: str | None) -> str:
    """Where the value of an option comes from, where that is not the command line; else empty."""
    source = context.get_parameter_source(name) if name else None
    return settings(context)[name].origin if name and source is not None and source.name == "DEFAULT_MAP" else ""


def origins(context: typer.Context, message: str) -> str:
    """Where values that a message may be about came from, if not from the command line; empty where there are none.

    A message may be about a value if it has a word of it, or a word of its option's name.
    """
    said, found = set(WORD.findall(message.lower())), []
    for name, value in context.params.items():
        where = origin(context, name)
        if where and said & set(WORD.findall(f"{name.replace('_', ' ')} {value}".lower())):
            found.append(f"{value!s} from {where}")
    return ", ".join(found)


def _from_environment(options: Mapping[str, Any]) -> Settings:
    found: Settings = {}
    for variable, value in sorted(os.environ.items()):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name in OTHERS or not value:
            continue
        if name not in options:
            hint = nearest(variable, [f"{PREFIX}{one.upper()}" for one in options])
            LOG.warning("%s in the environment is the name of no option%s", variable, hint and f".{hint}")
            continue
        param = options[name]
        found[param.name] = Setting(_several(value) if param.multiple else value, variable, FROM_ENVIRONMENT)
    return found


def _several(value: str) -> list[str]:
    """``[a, b]`` as its items; anything else is one value."""
    from decodery.core.written import Written, listed

    items = listed(Written(value))
    return [str(item) for item in items] if isinstance(items, list) else [value]


def _from_file(path: Path, options: Mapping[str, Any]) -> Settings:
    from decodery.core.written import from_yaml, plain

    try:
        entries = plain(from_yaml(read(path)) or {})
    except DecoderyError as error:
        raise DecoderyError(f"the config file {path}: {error}") from error
    if not isinstance(entries, dict):
        raise DecoderyError(f"{path} must be a mapping such as 'model: smollm2', not {entries!r:.40}")
    found: Settings = {}
    for entry, value in entries.items():
        name = _plain(str(entry))
        if name not in options:
            raise DecoderyError(
                f"{path} sets {entry!r}, which is no option of any command.{nearest(name, options)} "
                "It may set what 'decodery COMMAND --help' lists, such as model, draft, guide, plan, max_new_tokens"
            )
        param = options[name]
        if param.multiple and not isinstance(value, list):
            value = [value]
        elif not param.multiple and isinstance(value, (list, dict)):
            raise DecoderyError(f"{path}: {entry} is written as on the command line, not as {value!r:.60}")
        if value not in (None, "", [], [""]):
            found[param.name] = Setting(value, f"{entry} in {path}", FROM_FILE)
    return found


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()
