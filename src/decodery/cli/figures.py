"""Commands that measure: profile, doctor, bench, report, sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from decodery.cli.common import err, out, silence
from decodery.cli.groups import BenchOptions, RecipeOptions, TextOptions
from decodery.cli.models import LoadOptions, ModelOptions
from decodery.cli.options import JSON, LIMIT, PLAN, PROMPT, TOKENS, command
from decodery.core.errors import DecoderyError


@command()
def profile(
    prompt: PROMPT = None,
    max_new_tokens: TOKENS = 128,
    plan: PLAN = "auto",
    as_json: JSON = False,
    chosen: RecipeOptions = RecipeOptions(),  # noqa: B008
    model: ModelOptions = ModelOptions(),  # noqa: B008
    text: TextOptions = TextOptions(),  # noqa: B008
) -> None:
    """Answer a prompt and show where the time goes, phase by phase, and what a forward of n tokens costs."""
    from decodery.inspect.profile import bars
    from decodery.inspect.profile import profile as measure

    words, parts = text.read(prompt), chosen.recipe()
    loaded = model.load(parts)
    found = measure(loaded, text.prompt(loaded, words), parts, max_new_tokens, plan)
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


@command()
def doctor(as_json: JSON = False, model: ModelOptions = ModelOptions(backend="auto")) -> None:  # noqa: B008
    """What this machine and this model can do, and what a forward costs; with --backend auto on every backend."""
    from decodery.core.errors import BadModel
    from decodery.inspect.doctor import examine_all

    models: dict[str, Any] = {}
    for name in ("torch", "openvino") if model.backend == "auto" else (model.backend,):
        try:
            models[name] = model.load(backend=name)
        except BadModel as error:
            if name == "torch" or model.backend != "auto":
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


@command()
def bench(
    suite: Annotated[
        str,
        typer.Argument(
            help="mini, spec-bench, mt-bench, mt-redundant, humaneval, gsm8k, json (schemas), or prompts with a FILE."
        ),
    ] = "mini",
    file: Annotated[Path | None, typer.Argument(help="Questions instead of the suite's own.")] = None,
    peers: Annotated[
        str,
        typer.Option(
            help="transformers, openvino, llamacpp (plain and lookup each), transformers-compiled, openvino-gguf."
        ),
    ] = "",
    limit: LIMIT = None,
    report: Annotated[Path, typer.Option(help="Folder of the results; an interrupted run goes on in it.")] = Path(
        "bench"
    ),
    max_new_tokens: TOKENS = 128,
    plan: PLAN = "auto",
    keep: Annotated[
        bool, typer.Option(help="Drafters remember the prompts before, as the papers measure them.")
    ] = False,
    repeat: Annotated[
        int, typer.Option(min=1, help="So many times, runners in turns; intervals then know the machine's noise.")
    ] = 1,
    chosen: BenchOptions = BenchOptions({"draft": "none,auto,suffix,recycling"}),  # noqa: B008
    model: LoadOptions = LoadOptions(),  # noqa: B008
) -> None:
    """Time methods and peers on many prompts, in turns, and write tables, pictures and a page."""
    if suite == "json":
        if file is not None or keep or repeat != 1:
            raise DecoderyError(
                "bench json has schemas of its own and measures once: leave out the FILE, --keep, --repeat"
            )
        _bench_json(model, report, peers, limit, max_new_tokens)
        return
    from decodery.bench.suites import tasks_of

    tasks = tasks_of(suite, file, limit)
    model.prepare()
    from decodery.bench.run import Choice, run

    parts = chosen.recipe().to_dict()
    parts.pop("draft", None)
    backend, loading = model.backend, model.changed()
    loading.pop("backend", None)
    own = (max_new_tokens, parts, keep, repeat, loading)
    choice = Choice(suite, model.model, chosen.drafts(), peers, backend, plan, *own)
    rows = run(choice, tasks, report, err)
    out.print((report / "summary.md").read_text() if rows else "nothing was answered: all prompts exceed the context")
    err.print(f"[dim]{report / 'report.html'}[/dim]")


@command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of results of decodery bench.")]) -> None:
    """Write the tables, pictures and page of a benchmark anew from what it recorded; nothing is decoded."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise DecoderyError("a report needs matplotlib: pip install matplotlib")
    silence()
    from decodery.bench.report import publish

    if not publish(folder):
        raise DecoderyError(f"{folder} holds no answers yet: run decodery bench with --report {folder}")
    err.print(f"[dim]{escape(str(folder / 'report.html'))}[/dim]")


@command()
def sweep(
    methods: Annotated[
        str, typer.Option("--methods", "--draft", "-d", help="Drafters, separated by commas.")
    ] = "none,auto",
    lengths: Annotated[str, typer.Option(help="Prompts of so many tokens.")] = "100,1000,4000",
    batches: Annotated[str, typer.Option(help="So many texts at once.")] = "1,2,4,8",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved repetitions; the median counts.")] = 3,
    report: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("bench"),
    model: LoadOptions = LoadOptions(),  # noqa: B008
) -> None:
    """Time first tokens by the length of the prompt, and batches by the number of texts, beside transformers."""
    model.prepare()
    from decodery.bench.sweep import Sweep
    from decodery.bench.sweep import sweep as measure
    from decodery.run.spec import specs

    choice = Sweep(
        model.model,
        tuple(specs(methods)),
        _whole("lengths", lengths),
        _whole("batches", batches),
        rounds,
        model.changed(),
    )
    for what in measure(choice, report):
        err.print(f"[dim]{what} ...[/dim]")
    out.print((report / "sweep.md").read_text())


def _bench_json(model: LoadOptions, report: Path, peers: str, limit: int | None, new: int) -> None:
    """Schemas: what is covered, how right and how quick masks are, and answers with drafts and without."""
    model.prepare()
    from decodery.bench.json_bench import bench_json
    from decodery.run.load import load

    def tell(what: str) -> None:
        err.print(f"[dim]{what} ...[/dim]")

    engines = [name.strip() for name in peers.split(",") if name.strip()]
    bench_json(load(model.model, **model.options()), report, engines, limit or 24, new, tell)
    out.print((report / "json.md").read_text())


def _whole(name: str, text: str) -> tuple[int, ...]:
    """Positive whole numbers separated by commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise DecoderyError(f"--{name} takes positive whole numbers separated by commas, not {text!r}")
    return tuple(int(part) for part in parts)
