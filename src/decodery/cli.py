"""The command line: run, chat, compare, bench, profile, index, fit-tree, list, show, doctor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from decodery.errors import DecoderyError

app = typer.Typer(
    help="One decoding engine: choose how tokens are chosen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

MODEL = Annotated[
    str, typer.Option("--model", "-m", envvar="DECODERY_MODEL", help="Hub id, directory, .gguf file or smollm2.")
]
DRAFT = Annotated[str, typer.Option("--draft", "-d", help="Drafter, e.g. recycling or ngram:max=4,width=3.")]
VERIFY = Annotated[str, typer.Option(help="Verifier; by default the exact one that fits.")]
GUIDE = Annotated[list[str], typer.Option("--guide", "-g", help="Guide, e.g. top-p:0.9; may be given several times.")]
CONSTRAIN = Annotated[str, typer.Option(help="Constraint, e.g. regex:[0-9]+ or choice:[yes,no].")]
SEARCH = Annotated[str, typer.Option(help="Search, e.g. beam:width=4.")]
RECIPE = Annotated[Path | None, typer.Option(help="A recipe file in YAML or JSON instead of the parts above.")]
TEMPERATURE = Annotated[float | None, typer.Option("--temperature", "-t", help="Short for --guide temperature:T.")]
TOKENS = Annotated[int, typer.Option("--max-new-tokens", "-n", help="At most so many new tokens.")]
STOP = Annotated[list[str], typer.Option(help="Stop string; may be given several times.")]
SEED = Annotated[int | None, typer.Option(help="Makes sampling repeatable.")]
RAW = Annotated[bool, typer.Option(help="Use the prompt as it is, without the chat template.")]
SYSTEM = Annotated[str, typer.Option(help="System message.")]
DTYPE = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, or int8 (weights rounded to 8 bits).")]
BACKEND = Annotated[
    str, typer.Option(envvar="DECODERY_BACKEND", help="torch, openvino, or auto: the fastest there is.")
]
LAYER_SPEEDUP = Annotated[
    int, typer.Option(help="Above 1: new tokens go through one layer in so many. Another, worse model: lossy.")
]
PLAN = Annotated[str, typer.Option(help="How much to draft: auto (by measured cost), fixed:N nodes, or off (all).")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
MEMORY = Annotated[
    Path | None,
    typer.Option(help="Keep what the drafter learns in this file: read if it is there, written at the end."),
]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="The answer only.")]


@dataclass(frozen=True)
class Common:
    """Flags before the command."""

    debug: bool = False


common = Common()


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    config: Annotated[
        Path | None, typer.Option(envvar="DECODERY_CONFIG", help="YAML with defaults: model, draft, guide, ...")
    ] = None,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """One decoding engine: choose how tokens are chosen."""
    global common
    common = Common(debug)
    path = config or Path(typer.get_app_dir("decodery")) / "config.yaml"
    with _errors():
        if config is not None and not path.is_file():
            raise DecoderyError(f"no such config file: {path}")
        if path.is_file():
            entries = yaml.safe_load(path.read_text()) or {}
            known = {
                "model",
                "draft",
                "verify",
                "guide",
                "constrain",
                "search",
                "max_new_tokens",
                "system",
                "dtype",
                "backend",
            }
            if not isinstance(entries, dict) or (unknown := entries.keys() - known):
                raise DecoderyError(
                    f"{path} may set {', '.join(sorted(known))}; not {sorted(unknown or ['a list'])[0]!r}"
                )
            commands = ("run", "chat", "compare", "profile", "bench", "index", "doctor")
            context.default_map = dict.fromkeys(commands, entries)


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
    with _errors(), ExitStack() as last:
        from decodery.engine import stream
        from decodery.memory import remembered

        if trace is not None and not trace.absolute().parent.is_dir():
            raise DecoderyError(f"cannot write the trace: there is no folder {trace.absolute().parent}")
        parts = _recipe(recipe, draft, verify, guide, constrain, search, temperature)
        loaded = _load(model, dtype, backend, layer_speedup)
        text = sys.stdin.read() if prompt == "-" else prompt
        last.enter_context(remembered(parts.draft, loaded, memory))
        pieces = stream(
            loaded,
            _messages(loaded, text, system, raw),
            recipe=parts,
            max_new_tokens=max_new_tokens,
            stop=stop,
            seed=seed,
            time_limit=time_limit,
            plan=plan,
        )
        recorder = None
        if trace is not None:
            from decodery.trace import Recorder

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
        out.print()
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
    with _errors():
        from decodery.chat import Chat
        from decodery.memory import remembered

        parts = _recipe(None, draft, verify, guide, "none", "", temperature)
        loaded = _load(model, dtype, backend, layer_speedup)
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
    with _errors():
        from decodery.compare import compare_drafts

        loaded = _load(model, dtype, backend)
        text = sys.stdin.read() if prompt == "-" else prompt
        results = compare_drafts(loaded, _messages(loaded, text, system, raw), draft, max_new_tokens, rounds, plan)
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
    with _errors():
        from decodery.profile import bars
        from decodery.profile import profile as measure

        parts = _recipe(None, draft, verify, guide, constrain, "", temperature)
        loaded = _load(model, dtype, backend)
        text = sys.stdin.read() if prompt == "-" else prompt
        found = measure(loaded, _messages(loaded, text, system, raw), parts, max_new_tokens, plan)
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
def index(
    files: Annotated[list[Path], typer.Argument(help="Text files in UTF-8, a document each.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make.")],
    model: MODEL = "smollm2",
    as_json: JSON = False,
) -> None:
    """Make a datastore of text files, for --draft datastore:STORE. A model's own answers serve it best."""
    with _errors():
        from time import perf_counter

        from decodery.store import index as build

        start, text = perf_counter(), _text(model)
        store = build(files, text.pieces, text.fingerprint, output, model=model)
        facts = {"store": str(output), "tokens": len(store), "seconds": round(perf_counter() - start, 2)}
        if as_json:
            print(json.dumps(facts))
        else:
            err.print(
                f"{escape(str(output))}: {len(store)} tokens, {8 * len(store) / 1e6:.1f} MB, {facts['seconds']} s"
            )


@app.command("fit-tree")
def fit_tree(
    prompts: Annotated[str, typer.Argument(help="A text file, a prompt a line, or a suite such as spec-bench.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The template to write, FILE.json.")],
    nodes: Annotated[int, typer.Option(help="Nodes of the tree; a forward computes one row more.")] = 16,
    widest: Annotated[str, typer.Option(help="Where to choose from: published, or all RANKSxDEPTH, e.g. 4x3.")] = (
        "published"
    ),
    limit: Annotated[int | None, typer.Option(help="At most so many prompts, spread over the categories.")] = None,
    model: MODEL = "smollm2",
    max_new_tokens: TOKENS = 64,
    raw: RAW = False,
    system: SYSTEM = "",
    dtype: DTYPE = "auto",
    backend: BACKEND = "torch",
    as_json: JSON = False,
) -> None:
    """Fit the tree of Token Recycling to a model and prompts, for --draft recycling:template=FILE.json."""
    with _errors():
        from decodery.bench.suites import FILES, tasks_of
        from decodery.fit import fit

        tasks = tasks_of(prompts, None, limit) if prompts in FILES else tasks_of("prompts", Path(prompts), limit)
        loaded = _load(model, dtype, backend)
        messages = [_messages(loaded, task.turns[0], system, raw) for task in tasks]
        notes = fit(loaded, messages, output, nodes, widest, max_new_tokens, source=prompts)
        if as_json:
            print(json.dumps({"template": str(output)} | notes))
        else:
            told = f"{notes['steps']} forwards of {len(tasks)} prompts promise {notes['tokens_per_forward']:.2f}"
            err.print(f"{escape(str(output))}: {nodes} nodes, {told} tokens per forward")


@app.command("list")
def list_parts(
    role: Annotated[str, typer.Argument(help="draft, verify, guide, constrain or search; all if left out.")] = "",
    as_json: JSON = False,
) -> None:
    """The parts there are: name, paper, lossless or not, what they need."""
    with _errors():
        from decodery.registry import ROLES, entries

        if role and role not in ROLES:
            raise DecoderyError(f"there is no role {role!r}; roles: {', '.join(ROLES)}")
        rows = [_facts(entry) for entry in entries() if role in ("", entry.role)]
        if as_json:
            print(json.dumps(rows))
            return
        table = Table("role", "name", "lossless", "needs", "what it does", "paper", box=None, header_style="bold")
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        out.print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A part, e.g. recycling or guide/top-p.")]) -> None:
    """A part's description, its parameters with defaults, and where its source is."""
    with _errors():
        import dataclasses
        import inspect

        from decodery.registry import entries, find

        role, slash, short = name.rpartition("/")
        found = [e for e in entries() if e.name == short and (not slash or e.role == role)]
        if not found:
            find(role or "draft", short)
        for entry in found:
            kind = entry.part
            out.print(
                f"[bold]{entry.role} part {entry.name}[/bold]"
                + (f"  [dim]{escape(kind.paper)}[/dim]" * bool(kind.paper))
            )
            out.print(escape(inspect.cleandoc(kind.__doc__ or "")))
            for field in dataclasses.fields(kind):
                if field.init:
                    default = "required" if field.default is dataclasses.MISSING else repr(field.default)
                    out.print(f"  [cyan]{field.name}[/cyan]: {escape(str(field.type))} = {escape(default)}")
            out.print(f"  lossless: {_yes(kind.lossless)} · source: {inspect.getsourcefile(kind)}\n")


@app.command()
def doctor(model: MODEL = "smollm2", dtype: DTYPE = "auto", backend: BACKEND = "auto", as_json: JSON = False) -> None:
    """What this machine and this model can do, and what a forward costs; with --backend auto on every backend."""
    with _errors():
        from decodery.doctor import examine_all
        from decodery.errors import BadModel

        models = {}
        for name in ("torch", "openvino") if backend == "auto" else (backend,):
            try:
                models[name] = _load(model, dtype, name)
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
    with _errors():
        from decodery.bench.suites import tasks_of

        tasks = tasks_of(suite, file, limit)
        _silence()
        from decodery.bench.run import Choice, run

        choice = Choice(suite, model, methods, peers, backend, plan, max_new_tokens, tuple(guide), keep)
        rows = run(choice, tasks, report, err)
        out.print(
            (report / "summary.md").read_text() if rows else "nothing was answered: all prompts exceed the context"
        )
        err.print(f"[dim]{report / 'report.html'}[/dim]")


def main() -> None:
    """The ``decodery`` command."""
    app()


def _recipe(
    file: Path | None,
    draft: str,
    verify: str,
    guide: list[str],
    constrain: str,
    search: str,
    temperature: float | None,
) -> Any:
    from decodery.recipe import Recipe

    if file is not None:
        if not file.is_file():
            raise DecoderyError(f"no such recipe file: {file}")
        return Recipe.from_text(file.read_text())
    guides = [*guide, *([] if temperature is None else [f"temperature:{temperature}"])]
    return Recipe.of(draft, verify or None, guides, constrain, search or None)


def _load(spec: str, dtype: str, backend: str, layer_speedup: int = 1) -> Any:
    _silence()
    from decodery.model.load import load

    return load(spec, dtype=dtype, backend=backend, layer_speedup=layer_speedup)


def _text(spec: str) -> Any:
    _silence()
    from decodery.model.load import load_text

    return load_text(spec)


def _silence() -> None:
    """No progress bars and warnings of transformers between the lines."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _messages(model: Any, text: str, system: str, raw: bool) -> Any:
    if raw or model.text.tokenizer.chat_template is None:
        return text
    if not text.strip():
        raise DecoderyError("the prompt is empty")
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]


def _show(piece: Any, show_draft: bool) -> None:
    drafted = piece.drafted if show_draft else 0
    out.print(piece.text[:drafted], end="", style="green", markup=False)
    out.print(piece.text[drafted:], end="", markup=False)


def _comparison(rows: list[Any]) -> Table:
    table = Table("draft", "tok/s", "vs plain", "tokens/forward", "accepted", "identical", header_style="bold")
    for row in rows:
        table.add_row(*row.cells())
    return table


def _facts(entry: Any) -> dict[str, str]:
    kind = entry.part
    return {
        "role": entry.role,
        "name": entry.name,
        "lossless": _yes(kind.lossless),
        "needs": ", ".join(sorted(cap.value for cap in kind.needs)),
        "what": (kind.__doc__ or "").strip().splitlines()[0],
        "paper": kind.paper,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


@contextmanager
def _errors() -> Iterator[None]:
    """Print what the user can mend and exit with 2; no traceback unless asked for."""
    try:
        yield
    except (DecoderyError, OSError) as error:
        if common.debug:
            raise
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped", 130)


def _fail(message: str, code: int = 2) -> NoReturn:
    err.print(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(code)
