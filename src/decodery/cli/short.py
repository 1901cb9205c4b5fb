"""Options of other tools that are short for a guide, and the order in which options were typed."""

from __future__ import annotations

from typing import Any, NamedTuple

from typer import BadParameter
from typer.core import TyperCommand

from decodery.cli.settings import origin


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
