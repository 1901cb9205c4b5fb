"""Commands that measure: profile, doctor, bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from decodery.cli.common import (
    BACKEND,
    CONSTRAIN,
    DRAFT,
    DTYPE,
    GUIDE,
    JSON,
    MODEL,
    PLAN,
    RAW,
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
    silence,
)


@app.command()
def profile(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    model: MODEL = "smollm2",
    draft: DRAFT = "none",
    verify: VERIFY = "",
    guide: GUIDE = [],  # noqa: B006
    constrain: CONSTRAIN = "none",
    temperature: TEMPERATURE = None,
    max_new_tokens: TOKENS = 128,
    raw: RAW = False,
    system: SYSTEM = "",
    dtype: DTYPE = "auto",
    backend: BACKEND = "torch",
    plan: PLAN = "off",
    as_json: JSON = False,
) -> None:
    """Answer a prompt and show where the time goes, phase by phase, and what a forward of n tokens costs."""
    with errors():
        from decodery.inspect.profile import bars
        from decodery.inspect.profile import profile as measure

        parts = recipe_of(None, draft, verify, guide, constrain, "", temperature)
        loaded = load_model(model, dtype, backend)
        found = measure(loaded, conversation(loaded, prompt_of(prompt), system, raw), parts, max_new_tokens, plan)
        if as_json:
            print(json.dumps({"phases": found.phases, "cost": found.cost, "stats": found.stats.as_dict()}))
            return
        out.print(f"{escape(found.stats.line())}\n\n[bold]ms a step, by phase[/bold]")
        steps = max(found.stats.forwards - 1, 1)
        for name, bar, ms in bars({name: 1e3 * s / steps for name, s in found.phases.items()}):
            out.print(f"{name:>10} {ms:8.2f} [cyan]{bar}[/cyan]")
        out.print("\n[bold]ms of a forward, by its tokens[/bold]")
        for name, bar, ms in bars({f"n={n}": ms for n, ms in found.cost.items()}):
            out.print(f"{name:>10} {ms:8.1f} [cyan]{bar}[/cyan]")


@app.command()
def doctor(model: MODEL = "smollm2", dtype: DTYPE = "auto", backend: BACKEND = "auto", as_json: JSON = False) -> None:
    """What this machine and this model can do, and what a forward costs; with --backend auto on every backend."""
    with errors():
        from decodery.core.errors import BadModel
        from decodery.inspect.doctor import examine_all

        models = {}
        for name in ("torch", "openvino") if backend == "auto" else (backend,):
            try:
                models[name] = load_model(model, dtype, name)
            except BadModel as error:
                if name == "torch" or backend != "auto":
                    raise
                models[name] = str(error)
        report = examine_all(models)
        if as_json:
            print(json.dumps(report))
            return
        for section, entries in report.items():
            out.print(f"[bold]{section}[/bold]")
            for key, value in entries.items():
                out.print(f"  {key:<24} {escape(str(value))}")


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help="spec-bench, mt-redundant, humaneval, gsm8k, or prompts with a FILE.")],
    file: Annotated[Path | None, typer.Argument(help="Questions instead of the suite's own.")] = None,
    methods: Annotated[
        str, typer.Option(help="Drafters, separated by commas; DRAFT&VERIFY, DRAFT@torch, or all-training-free.")
    ] = ("none,ngram,recycling,jacobi"),
    peers: Annotated[str, typer.Option(help="transformers, openvino, llamacpp (plain and lookup each).")] = "",
    limit: Annotated[int | None, typer.Option(help="At most so many questions, spread over the categories.")] = None,
    report: Annotated[Path, typer.Option(help="Folder of the results; an interrupted run goes on in it.")] = Path(
        "bench"
    ),
    model: MODEL = "smollm2",
    max_new_tokens: TOKENS = 128,
    plan: PLAN = "auto",
    backend: BACKEND = "auto",
    guide: GUIDE = [],  # noqa: B006
    keep: Annotated[
        bool, typer.Option(help="Drafters remember the prompts before, as the papers measure them.")
    ] = False,
) -> None:
    """Time methods and peers on many prompts, in turns, and write tables, pictures and a page."""
    with errors():
        from decodery.bench.suites import tasks_of

        tasks = tasks_of(suite, file, limit)
        silence()
        from decodery.bench.run import Choice, run

        choice = Choice(suite, model, methods, peers, backend, plan, max_new_tokens, tuple(guide), keep)
        rows = run(choice, tasks, report, err)
        out.print(
            (report / "summary.md").read_text() if rows else "nothing was answered: all prompts exceed the context"
        )
        err.print(f"[dim]{report / 'report.html'}[/dim]")
