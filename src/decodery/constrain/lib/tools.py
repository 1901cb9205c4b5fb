"""Tools as users describe them: OpenAI's form, or Python types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from decodery.constrain.lib.files import told
from decodery.constrain.lib.schemas import meant, read_schema


class Tool(NamedTuple):
    """A tool's name, the schema of its arguments, and what validates them where they are a Python type."""

    name: str
    schema: dict[str, Any]
    adapter: TypeAdapter[Any] | None = None


def read_tools(given: Any) -> dict[str, Tool]:
    """Tools by name, of a file, a text in JSON, one description or a list of them.

    Raises ``ValueError`` saying which one is wrong, and how.
    """
    if isinstance(given, str):
        text = told(given, ("[", "{"))
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the tools are no JSON: {error}") from error
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    tools: dict[str, Tool] = {}
    for i, one in enumerate(listed):
        tool = _tool(meant(one), i)
        if tool.name in tools:
            raise ValueError(f"two tools are called {tool.name!r}")
        tools[tool.name] = tool
    return tools


def _tool(given: Any, number: int) -> Tool:
    if not isinstance(given, Mapping):
        name = getattr(given, "__name__", "")
        if not isinstance(given, type):
            raise ValueError(f"tool {number} is a mapping with a name and parameters, or a class, not {given!r:.80}")
        schema = read_schema(given)
        return Tool(name, schema.entries, schema.adapter)
    entry = given.get("function", given)
    if not isinstance(entry, Mapping) or not isinstance(name := entry.get("name"), str) or not name:
        raise ValueError(f"tool {number} has no name: {json.dumps(given, default=str):.120}")
    parameters = entry.get("parameters", entry.get("input_schema"))
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    try:
        return Tool(name, read_schema(parameters).entries)
    except ValueError as error:
        raise ValueError(f"tool {name!r}: {error}") from error
