"""Options that commands share, and how a command is made of its own and those of its groups (``groups.py``)."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Self, get_type_hints

import typer

from decodery.cli import completion
from decodery.cli.common import app
from decodery.cli.short import Ordered
from decodery.core.errors import DecoderyError

MODEL = Annotated[
    str,
    typer.Option("--model", "-m", help="Hub id, directory, .gguf file or smollm2.", autocompletion=completion.models),
]
BACKEND = Annotated[str, typer.Option(help="torch, openvino, or auto: the fastest there is.")]
UNTIL_THE_END = 1 << 30
"""New tokens that stand for as many as there are until the answer or the context ends."""


def _tokens(count: int) -> int:
    if count < 1 and count != -1:
        raise typer.BadParameter(f"a number of tokens is 1 or more, or -1: until the end; not {count}")
    return UNTIL_THE_END if count == -1 else count


def _seed(seed: int | None) -> int | None:
    if seed is not None and seed < -1:
        raise typer.BadParameter(f"a seed is 0 or more, or -1: another each time; not {seed}")
    return None if seed == -1 else seed


def _plan(plan: str) -> str:
    from decodery.core.written import amount

    try:
        amount(plan)
    except DecoderyError as error:
        raise typer.BadParameter(str(error)) from error
    return plan


TOKENS = Annotated[
    int,
    typer.Option(
        "--max-new-tokens",
        "--max-tokens",
        "--n-predict",
        "-n",
        callback=_tokens,
        help="At most so many new tokens; -1: until the end.",
    ),
]
PROMPT = Annotated[str | None, typer.Argument(help="The prompt; without one, and for -, standard input is read.")]
STOP = Annotated[list[str], typer.Option(help="Stop string; may be given several times.")]
SEED = Annotated[
    int | None, typer.Option("--seed", "-s", callback=_seed, help="Makes sampling repeatable; -1: another each time.")
]
PLAN = Annotated[
    str,
    typer.Option(callback=_plan, help="How much to draft: auto (by measured cost), fixed:N nodes, or off (all)."),
]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
SHOW_DRAFT = Annotated[bool, typer.Option(help="Colour what drafts contributed.")]
LIMIT = Annotated[int | None, typer.Option(min=1, help="At most so many prompts, spread over the categories.")]
MEMORY = Annotated[
    Path | None,
    typer.Option(help="Keep what the drafter learns in this file: read if it is there, written at the end."),
]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="The answer only.")]
CONTEXT = Annotated[
    int | None, typer.Option("--ctx-size", "-c", min=1, help="At most so many tokens, prompt and answer.")
]
THREADS = Annotated[int | None, typer.Option(min=1, help="Threads of a forward; by default one a core.")]
RECIPE = Annotated[Path | None, typer.Option(help="A recipe file in YAML or JSON instead of options for the parts.")]


@dataclass
class Group:
    """Options that belong together. A command's default for its parameter, a group, holds the defaults of these options."""

    def declared(self) -> list[inspect.Parameter]:
        """The options as typer reads them from a signature."""
        hints = get_type_hints(type(self), include_extras=True)
        return [parameter(f.name, hints[f.name], getattr(self, f.name)) for f in dataclasses.fields(self)]

    def given(self, values: dict[str, Any], context: typer.Context) -> Self:
        """This group with the values of a call."""
        return dataclasses.replace(self, **values)


def command(name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command of the application; parameters whose default is a group stand for the options of that group.

    Errors that the user can mend are told by the command itself, those of reading options included.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        groups = {p.name: p.default for p in signature.parameters.values() if isinstance(p.default, Group)}
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values() if p.name not in groups]
        parts = {name: group.declared() for name, group in groups.items()}
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

        @wraps(function)
        def run(context: typer.Context, **values: Any) -> None:
            from decodery.cli.common import errors

            with errors(context):
                if context.args:
                    raise DecoderyError(_too_many(context, values))
                for name, group in groups.items():
                    mine = {one.name: values.pop(one.name) for one in parts[name]}
                    values[name] = group.given(mine, context)
                function(**values)

        flat = [context, *own, *(one for group in parts.values() for one in group)]
        run.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in flat}
        app.command(name, cls=Ordered, context_settings={"allow_extra_args": True})(run)
        return function

    return register


def _too_many(context: typer.Context, values: dict[str, Any]) -> str:
    """What to say of arguments that a command does not take."""
    more = " ".join(context.args)
    if "prompt" in values:
        return f"{more!r} comes after the prompt {values['prompt']!r}: put a prompt of several words in quotes"
    return f"{context.info_name} takes no argument {more!r}; decodery {context.info_name} --help tells what it takes"


def parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
