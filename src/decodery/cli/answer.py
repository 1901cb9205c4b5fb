"""Commands that answer: run, chat, compare."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from decodery.cli.common import (
    BACKEND,
    CONSTRAIN,
    DRAFT,
    DTYPE,
    GREEN,
    GUIDE,
    JSON,
    LAYER_SPEEDUP,
    MEMORY,
    MODEL,
    PLAN,
    QUIET,
    RAW,
    RECIPE,
    SEARCH,
    SEED,
    STOP,
    SYSTEM,
    TEMPERATURE,
    TOKENS,
    VERIFY,
    app,
    conversation,
    err,
    errors,
    load_model,
    out,
    prompt_of,
    recipe_of,
    tell,
)
from decodery.core.errors import DecoderyError


@app.command()
def run(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    model: MODEL = "smollm2",
    draft: DRAFT = "none",
    verify: VERIFY = "",
    guide: GUIDE = [],  # noqa: B006
    constrain: CONSTRAIN = "none",
    search: SEARCH = "",
    recipe: RECIPE = None,
    temperature: TEMPERATURE = None,
    max_new_tokens: TOKENS = 256,
    stop: STOP = [],  # noqa: B006
    seed: SEED = None,
    raw: RAW = False,
    system: SYSTEM = "",
    dtype: DTYPE = "auto",
    backend: BACKEND = "torch",
    layer_speedup: LAYER_SPEEDUP = 1,
    show_draft: Annotated[bool, typer.Option(help="Colour what drafts contributed.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write a page that shows every step.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    plan: PLAN = "off",
    memory: MEMORY = None,
    as_json: JSON = False,
    quiet: QUIET = False,
) -> None:
    """Answer a prompt, streaming."""
    with errors(), ExitStack() as last:
        from decodery.draft.lib.memory import remembered
        from decodery.run.answer import stream

        if trace is not None and not trace.absolute().parent.is_dir():
            raise DecoderyError(f"cannot write the trace: there is no folder {trace.absolute().parent}")
        parts = recipe_of(recipe, draft, verify, guide, constrain, search, temperature)
        loaded = load_model(model, dtype, backend, layer_speedup)
        text = prompt_of(prompt)
        last.enter_context(remembered(parts.draft, loaded, memory))
        pieces = stream(
            loaded,
            conversation(loaded, text, system, raw),
            recipe=parts,
            max_new_tokens=max_new_tokens,
            stop=stop,
            seed=seed,
            time_limit=time_limit,
            plan=plan,
        )
        recorder = None
        if trace is not None:
            from decodery.inspect.trace import Recorder

            recorder = Recorder(loaded.name, parts.to_dict(), loaded.text)
        for piece in pieces:
            if recorder is not None and piece.step is not None:
                recorder.add(piece.step)
            if not as_json:
                _show(piece, show_draft)
        output = pieces.output
        if recorder is not None and trace is not None:
            recorder.write(trace, output.stats, output.text)
        if as_json:
            fields = {"text": output.text, "tokens": output.tokens, "finish_reason": output.finish_reason}
            print(
                json.dumps(fields | {"stats": output.stats.as_dict(), "recipe": parts.to_dict(), "model": loaded.name})
            )
            return
        tell("\n")
        if not quiet:
            err.print(f"[dim]{escape(output.stats.line())} · {output.finish_reason}[/dim]")
            if trace is not None:
                err.print(f"[dim]trace: {trace}[/dim]")


@app.command()
def chat(
    model: MODEL = "smollm2",
    draft: DRAFT = "recycling",
    verify: VERIFY = "",
    guide: GUIDE = [],  # noqa: B006
    temperature: TEMPERATURE = None,
    max_new_tokens: TOKENS = 512,
    seed: SEED = None,
    system: SYSTEM = "",
    dtype: DTYPE = "auto",
    backend: BACKEND = "torch",
    layer_speedup: LAYER_SPEEDUP = 1,
    show_draft: Annotated[bool, typer.Option(help="Colour what drafts contributed.")] = False,
    memory: MEMORY = None,
    quiet: QUIET = False,
) -> None:
    """Talk; /help lists the commands. Ctrl-C stops an answer, Ctrl-D ends."""
    with errors():
        from decodery.cli.chat import Chat
        from decodery.draft.lib.memory import remembered

        parts = recipe_of(None, draft, verify, guide, "none", "", temperature)
        loaded = load_model(model, dtype, backend, layer_speedup)
        with remembered(parts.draft, loaded, memory):
            Chat(loaded, parts, system, max_new_tokens, seed, show_draft, quiet, out, _show).loop()


@app.command()
def compare(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    draft: Annotated[str, typer.Option("--draft", "-d", help="Drafters to compare, separated by commas.")] = (
        "none,ngram,recycling,jacobi,model"
    ),
    model: MODEL = "smollm2",
    max_new_tokens: TOKENS = 128,
    plan: PLAN = "off",
    rounds: Annotated[int, typer.Option(help="Interleaved repetitions; the median counts.")] = 1,
    raw: RAW = False,
    system: SYSTEM = "",
    dtype: DTYPE = "auto",
    backend: BACKEND = "torch",
    as_json: JSON = False,
) -> None:
    """Decode one prompt with several drafters, greedily, and compare: speed, tokens per forward, identical to plain?"""
    with errors():
        from decodery.inspect.compare import compare_drafts

        loaded = load_model(model, dtype, backend)
        text = prompt_of(prompt)
        results = compare_drafts(loaded, conversation(loaded, text, system, raw), draft, max_new_tokens, rounds, plan)
        if as_json:
            last = [row.as_dict() for row in list(results)[-1]]
            print(json.dumps(last))
        else:
            with Live(console=out, refresh_per_second=4) as live:
                for rows in results:
                    live.update(_comparison(rows))
            if not out.is_terminal:
                out.print()
            if differing := [row for row in rows if row.identical is False]:
                err.print(f"[red]{differing[0].draft} differs from plain decoding: {differing[0].note}[/red]")
                raise typer.Exit(1)


def _show(piece: Any, show_draft: bool) -> None:
    drafted = piece.drafted if show_draft else 0
    tell(piece.text[:drafted], GREEN)
    tell(piece.text[drafted:])


def _comparison(rows: list[Any]) -> Table:
    table = Table("draft", "tok/s", "vs plain", "tokens/forward", "accepted", "identical", header_style="bold")
    for row in rows:
        table.add_row(*row.cells())
    return table
