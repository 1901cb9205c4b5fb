"""The answer is JSON that a schema describes."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from decodery.constrain.lib.matcher import MatcherConstraint
from decodery.constrain.lib.schemas import (
    FORMATS,
    Whitespace,
    formats_in,
    grammar_of,
    read_schema,
    value_of,
    why_refused,
    without_unknown_formats,
)
from decodery.constrain.lib.xgrammar import left_out, matcher_of
from decodery.core.part import Model

LOG = logging.getLogger(__name__)
SHOWN = 5
"""Formats that a warning lists."""
SEPARATORS = {"spaced": (", ", ": "), "compact": (",", ":")}


@dataclass
class JsonSchema(MatcherConstraint):
    """The answer is JSON that ``schema`` describes; a schema that cannot be enforced is refused, with the place.

    ``schema``: a file, a text, a mapping, or a Python type (a Pydantic model, a dataclass, a TypedDict, an Enum ...), whose
    values ``Output.parsed`` then has. Properties come in the order of the schema. ``whitespace``: as in ``json``.
    ``engine``: what follows the schema; xgrammar has to be installed, and takes "spaced" and "compact" only. ``formats``:
    refuse those that cannot be enforced, or leave them out and list them in the log. Known formats are
    enforced by their form, which the log tells as well.
    """

    example = 'json-schema:{"type": "integer"}'
    paper = "JSONSchemaBench, arXiv 2501.10868"
    specimens = ({"schema": '{"type": "integer", "minimum": -12, "maximum": 21}'}, {"schema": '{"enum": [1, 12, 121]}'})
    letters = "12-"
    schema: Any
    whitespace: Whitespace = "spaced"
    formats: Literal["enforce", "list"] = "enforce"
    engine: Literal["llguidance", "xgrammar"] = "llguidance"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._schema, self._adapter = read_schema(self.schema)

        self._enforced = self._schema if self.formats == "enforce" else without_unknown_formats(self._schema)
        if self.engine == "xgrammar":
            if self.whitespace not in SEPARATORS:
                raise ValueError(f"engine=xgrammar takes whitespace={' or '.join(SEPARATORS)}, not {self.whitespace}")
            if lacking := next(left_out(self._enforced), ""):
                raise ValueError(lacking)
        else:
            self.examine()

    def grammar(self) -> str:
        return grammar_of(self._enforced, self.whitespace)

    def matcher(self, model: Model) -> Any:
        _tell(tuple(sorted(formats_in(self._schema))))
        if self.engine == "llguidance":
            return super().matcher(model)
        how: dict[str, Any] = {"any_whitespace": False, "strict_mode": False, "separators": SEPARATORS[self.whitespace]}
        return matcher_of(model, lambda compiler: compiler.compile_json_schema(json.dumps(self._enforced), **how))

    def refused(self, why: str) -> str:
        return why_refused(self._enforced, why)

    def value(self, text: str, whole: bool = True) -> Any:
        return value_of(text, whole, self._adapter)


@lru_cache(256)
def _tell(formats: tuple[tuple[str, str], ...]) -> None:
    """Say once what of a schema is enforced in part or not at all."""
    for how, some in (("by their form only", True), ("not at all", False)):
        if told := [f"{form} ({place})" for form, place in formats if (form in FORMATS) is some]:
            more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
            LOG.warning("formats that are enforced %s: %s%s", how, ", ".join(told[:SHOWN]), more)
