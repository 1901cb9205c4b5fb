"""Commands that answer: run, chat, compare."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from decodery.cli.common import GREEN, can_be_written, err, out, sound, tell
from decodery.cli.groups import DraftsOptions, RecipeOptions, TextOptions
from decodery.cli.models import ModelOptions
from decodery.cli.options import JSON, MEMORY, PLAN, PROMPT, QUIET, SEED, SHOW_DRAFT, STOP, TOKENS, command
from decodery.cli.progress import Reading
from decodery.core.errors import DecoderyError

if TYPE_CHECKING:
    from rich.table import Table

    from decodery.inspect.compare import Comparison

START = monotonic()
"""When this process began to read its own code."""


@command()
def run(
    prompt: PROMPT = None,
    max_new_tokens: TOKENS = 256,
    stop: STOP = [],  # noqa: B006
    seed: SEED = None,
    show_draft: SHOW_DRAFT = False,
    trace: Annotated[Path | None, typer.Option(help="Write a page that shows every step.")] = None,
    time_limit: Annotated[float | None, typer.Option(min=0, help="Seconds.")] = None,
    plan: PLAN = "auto",
    memory: MEMORY = None,
    as_json: JSON = False,
    quiet: QUIET = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", "-cnv", help="Go on as a chat after the answer.")
    ] = False,
    chosen: RecipeOptions = RecipeOptions(),  # noqa: B008
    model: ModelOptions = ModelOptions(),  # noqa: B008
    text: TextOptions = TextOptions(),  # noqa: B008
) -> None:
    """Answer a prompt, streaming; with -i, a chat that begins with it."""
    if interactive:
        unfit = {"--json": as_json, "--trace": trace, "--stop": stop, "--time-limit": time_limit, "--raw": text.raw}
        if named := [name for name, value in unfit.items() if value]:
            raise DecoderyError(f"--interactive goes on as a chat, which has no {' and '.join(named)}: leave out one")
        words = text.read(prompt) if text.told or prompt is not None else ""
        _talk(chosen, model, plan, memory, max_new_tokens, seed, show_draft, quiet, text.system, words)
        return
    with ExitStack() as last:
        words = text.read(prompt)
        model.begin(chosen)
        from decodery.draft.lib.memory import remembered
        from decodery.run.api import stream

        if trace is not None:
            can_be_written("trace", trace)
        parts = chosen.recipe()
        loaded = model.load(parts)
        asked, parts = parts, chosen.sampled(parts, loaded)
        last.enter_context(remembered(parts.draft, loaded, memory))
        reading = last.enter_context(Reading(quiet))
        pieces = stream(
            loaded,
            text.prompt(loaded, words),
            recipe=parts,
            max_new_tokens=max_new_tokens,
            stop=stop,
            seed=seed,
            time_limit=time_limit,
            plan=plan,
            progress=reading,
        )
        recorder = None
        if trace is not None:
            from decodery.inspect.trace import Recorder
            from decodery.run.spec import text_of

            unsaid = {} if parts.search else {"draft": text_of(parts.draft)}
            recorder = Recorder(loaded.name, unsaid | parts.to_dict(), loaded.text)
        stopped = False
        try:
            for piece in pieces:
                if recorder is not None and piece.step is not None:
                    recorder.add(piece.step)
                if not as_json:
                    _show(piece, show_draft)
        except KeyboardInterrupt:
            stopped = True
            pieces.close()
        output = pieces.output
        if recorder is not None and trace is not None:
            recorder.write(trace, output.stats, output.text)
        ended = "stopped" if stopped else output.finish_reason
        if as_json:
            fields = {"text": output.text, "tokens": output.tokens, "finish_reason": ended}
            print(
                json.dumps(fields | {"stats": output.stats.as_dict(), "recipe": parts.to_dict(), "model": loaded.name})
            )
        else:
            tell("\n")
            if not quiet:
                drawn = f" · sampled as the model says ({', '.join(loaded.facts.sampling)})" * (
                    parts.guide != asked.guide
                )
                told = f"{output.stats.line()} · {ended}{drawn} · {monotonic() - START:.1f} s in all"
                err.print(f"[dim]{escape(told)}[/dim]")
                if trace is not None:
                    err.print(f"[dim]trace: {trace}[/dim]")
        if stopped:
            raise typer.Exit(130)


@command()
def chat(
    max_new_tokens: TOKENS = 512,
    seed: SEED = None,
    show_draft: SHOW_DRAFT = False,
    plan: PLAN = "auto",
    memory: MEMORY = None,
    quiet: QUIET = False,
    chosen: RecipeOptions = RecipeOptions(),  # noqa: B008
    model: ModelOptions = ModelOptions(),  # noqa: B008
    system: Annotated[str, typer.Option(help="System message.")] = "",
    raw: Annotated[
        bool, typer.Option(help="Show answers as they are; a terminal else renders their Markdown.")
    ] = False,
) -> None:
    """Talk; /help lists the commands. Ctrl-C stops an answer, Ctrl-D ends."""
    _talk(chosen, model, plan, memory, max_new_tokens, seed, show_draft, quiet, system, raw=raw)


def _talk(
    chosen: RecipeOptions,
    model: ModelOptions,
    plan: str,
    memory: Path | None,
    max_new_tokens: int,
    seed: int | None,
    show_draft: bool,
    quiet: bool,
    system: str,
    first: str = "",
    raw: bool = False,
) -> None:
    """A conversation in the terminal; ``first``: its first message."""
    sound("system", system)
    model.begin(chosen)
    from decodery.cli.chat import Chat
    from decodery.draft.lib.memory import remembered

    parts = chosen.recipe()
    loaded = model.load(parts)
    parts = chosen.sampled(parts, loaded)
    with remembered(parts.draft, loaded, memory):
        Chat(loaded, parts, system, max_new_tokens, seed, show_draft, quiet, out, _show, plan, raw).loop(first)


@command()
def compare(
    prompt: PROMPT = None,
    max_new_tokens: TOKENS = 128,
    plan: PLAN = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved repetitions; the median counts.")] = 1,
    as_json: JSON = False,
    chosen: DraftsOptions = DraftsOptions({"draft": "none,ngram,recycling,suffix,auto"}),  # noqa: B008
    model: ModelOptions = ModelOptions(),  # noqa: B008
    text: TextOptions = TextOptions(),  # noqa: B008
) -> None:
    """Decode one prompt with several drafters and compare: speed, tokens per forward, and (greedy) identical to plain?"""
    from rich.live import Live

    from decodery.inspect.compare import compared
    from decodery.inspect.compare import table as told_of
    from decodery.inspect.doctor import in_a_line, machine
    from decodery.run.spec import specs

    words, drafts, others = text.read(prompt), chosen.drafts(), chosen.recipe()
    loaded = model.load(*(others.replace(draft=name) for name in specs(drafts)))
    asked = text.prompt(loaded, words)
    results = compared(loaded, asked, drafts, rounds, others, max_new_tokens=max_new_tokens, plan=plan)
    if as_json:
        print(json.dumps([row.as_dict() for row in list(results)[-1]]))
    else:
        with Live(console=out, refresh_per_second=4) as live:
            for rows in results:
                live.update(_comparison(told_of(rows)))
        if not out.is_terminal:
            out.print()
        spread = "one round" if rounds == 1 else f"medians of {rounds} rounds, in brackets the least and the most"
        err.print(f"[dim]{escape(loaded.name)} · {escape(in_a_line(machine()))} · {spread}[/dim]")
        if differing := [row for row in rows if row.identical is False]:
            err.print(f"[red]{differing[0].draft} differs from plain decoding: {differing[0].note}[/red]")
            raise typer.Exit(1)


def _show(piece: Any, show_draft: bool) -> None:
    drafted = piece.drafted if show_draft else 0
    tell(piece.text[:drafted], GREEN)
    tell(piece.text[drafted:])


def _comparison(lines: Comparison) -> Table:
    from rich.table import Table

    table = Table(*lines.titles, header_style="bold")
    table.columns[1].no_wrap = True
    for line in lines:
        table.add_row(*map(escape, line.cells()))
    return table
