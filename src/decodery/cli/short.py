"""Options that are short for a guide or a constraint, and the order in which options were typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from typer import BadParameter
from typer.core import TyperCommand

from decodery.cli.settings import origin
from decodery.core.errors import DecoderyError


class Short(NamedTuple):
    """An option of other tools that is short for a guide. ``off``: the value that means none."""

    names: tuple[str, ...]
    kind: type
    guide: str
    off: float


SHORT = {
    "temperature": Short(("--temperature", "--temp", "-t"), float, "temperature", 0),
    "top_k": Short(("--top-k",), int, "top-k", 0),
    "top_p": Short(("--top-p",), float, "top-p", 1),
    "min_p": Short(("--min-p",), float, "min-p", 0),
    "repeat_penalty": Short(("--repeat-penalty", "--repetition-penalty"), float, "repetition", 1),
}


class Constrained(NamedTuple):
    """An option that is short for a constraint: ``{part: {parameter: value}}``; a part by the ending of a file's name."""

    flag: str
    kind: Any
    part: str | dict[str, str]
    parameter: str
    help: str


CONSTRAINED = {
    "json_schema": Constrained("--json-schema", str, "json-schema", "schema", "JSON by a schema, as the file has it."),
    "grammar": Constrained(
        "--grammar", str, {".gbnf": "gbnf", ".lark": "lark"}, "text", "By a grammar: a file, .gbnf or .lark."
    ),
    "regex": Constrained("--regex", str, "regex", "pattern", "The whole answer matches this regular expression."),
    "choice": Constrained(
        "--choice", list[str], "choice", "options", "The answer is one of these; given several times."
    ),
}

ORDER = "decodery.order"
"""Where a command notes the names of its options in the order in which they were typed."""


class Ordered(TyperCommand):
    """A command that notes the order of its options, for guides act in the order given, and that says of a bad value where
    it came from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            if where := origin(ctx, getattr(error.param, "name", None)):
                error.message = f"{error.message} ({where})"
            raise

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def noted(args: list[str]) -> Any:
            found = parse(args)
            ctx.meta[ORDER] = [option.name for option in found[2]]
            return found

        parser.parse_args = noted  # type: ignore[method-assign]
        return parser


def constraint_of(values: dict[str, Any]) -> Any:
    """The constraint that was asked for, by whatever option. Raises ``DecoderyError`` where there are several."""
    given = {name: values[name] for name in ("constrain", *CONSTRAINED) if values.get(name) not in (None, [], ())}
    if len(given) > 1:
        named = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise DecoderyError(f"{named} each constrain the answer; --constrain 'all(...,...)' joins several")
    for name, value in given.items():
        if name in CONSTRAINED:
            part = CONSTRAINED[name].part
            if isinstance(part, dict):
                ending = Path(value).suffix
                if ending not in part:
                    raise DecoderyError(f"--{name} takes a file that ends in {' or '.join(part)}, not {value!r}")
                if not Path(value).is_file():
                    raise DecoderyError(f"--{name}: there is no such file: {value}")
                part = part[ending]
            return {part: {CONSTRAINED[name].parameter: value}}
    return values.get("constrain")


def guides_of(values: dict[str, Any], order: list[str]) -> list[str]:
    """The guides in the order in which they and the short options were typed; those of a configuration file come first."""
    guides, given = [], list(values.get("guide") or [])
    if "guide" not in order:
        guides, given = given, []
    shorts = [name for name in SHORT if name not in order]
    for name in dict.fromkeys([*shorts, *(f"{i} guide" if name == "guide" else name for i, name in enumerate(order))]):
        if name.endswith(" guide"):
            guides.append(given.pop(0))
        elif name in SHORT and values[name] is not None and values[name] != SHORT[name].off:
            guides.append(f"{SHORT[name].guide}:{values[name]}")
    return guides
