"""What the commands share: the options, how parts and models are made of them, and how errors are told."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from decodery.core.errors import DecoderyError

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
DTYPE = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
BACKEND = Annotated[
    str, typer.Option(envvar="DECODERY_BACKEND", help="torch, openvino, or auto: the fastest there is.")
]
CHANGE = Annotated[
    list[str],
    typer.Option(help="Make another model of it, e.g. int8 or layer-speedup:2; may be given several times."),
]
PLAN = Annotated[str, typer.Option(help="How much to draft: auto (by measured cost), fixed:N nodes, or off (all).")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
MEMORY = Annotated[
    Path | None,
    typer.Option(help="Keep what the drafter learns in this file: read if it is there, written at the end."),
]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="The answer only.")]


COMMANDS_WITH_DEFAULTS = ("run", "chat", "compare", "profile", "bench", "index", "doctor")
DEFAULTS = {
    "backend",
    "change",
    "constrain",
    "draft",
    "dtype",
    "guide",
    "max_new_tokens",
    "model",
    "search",
    "system",
    "verify",
}
"""What a configuration file may set."""

tracebacks = False


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    config: Annotated[
        Path | None, typer.Option(envvar="DECODERY_CONFIG", help="YAML with defaults: model, draft, guide, ...")
    ] = None,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """One decoding engine: choose how tokens are chosen."""
    global tracebacks
    tracebacks = debug
    tell()
    path = config or Path(typer.get_app_dir("decodery")) / "config.yaml"
    with errors():
        if config is not None and not path.is_file():
            raise DecoderyError(f"no such config file: {path}")
        if path.is_file():
            entries = yaml.safe_load(path.read_text()) or {}
            if not isinstance(entries, dict) or (unknown := entries.keys() - DEFAULTS):
                raise DecoderyError(
                    f"{path} may set {', '.join(sorted(DEFAULTS))}; not {sorted(unknown or ['a list'])[0]!r}"
                )
            context.default_map = dict.fromkeys(COMMANDS_WITH_DEFAULTS, entries)


def recipe_of(
    file: Path | None,
    draft: str,
    verify: str,
    guide: list[str],
    constrain: str,
    search: str,
    temperature: float | None,
) -> Any:
    """A recipe of the options, or the one in a file."""
    from decodery.run.recipe import Recipe

    if file is not None:
        if not file.is_file():
            raise DecoderyError(f"no such recipe file: {file}")
        return Recipe.from_text(file.read_text())
    guides = [*guide, *([] if temperature is None else [f"temperature:{temperature}"])]
    return Recipe.of(draft, verify or None, guides, constrain, search or None)


def load_model(spec: str, dtype: str, backend: str, change: Sequence[str] = ()) -> Any:
    """A loaded model."""
    silence()
    from decodery.run.load import load

    return load(spec, dtype=dtype, backend=backend, change=change)


def text_of(spec: str) -> Any:
    """A model's tokenizer, without the model."""
    silence()
    from decodery.model.load import load_text

    return load_text(spec)


def silence() -> None:
    """No progress bars and warnings of transformers between the lines."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    theirs.set_verbosity_error()  # type: ignore[no-untyped-call]


class Told(logging.Handler):
    """Shows what the library logs, such as that it converts a model, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"[dim]{escape(record.getMessage())}[/dim]")


def tell() -> None:
    """Show the library's log from INFO upwards."""
    library = logging.getLogger("decodery")
    library.setLevel(logging.INFO)
    if not any(isinstance(handler, Told) for handler in library.handlers):
        library.addHandler(Told())


def conversation(model: Any, text: str, system: str, raw: bool) -> Any:
    """The prompt as a conversation, or as it is where that is wanted or the model has no chat template."""
    if raw or model.text.tokenizer.chat_template is None:
        return text
    if not text.strip():
        raise DecoderyError("the prompt is empty")
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]


@contextmanager
def errors() -> Iterator[None]:
    """Print what the user can mend and exit with 2; no traceback unless asked for."""
    try:
        yield
    except (DecoderyError, OSError) as error:
        if tracebacks:
            raise
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped", 130)


def fail(message: str, code: int = 2) -> NoReturn:
    """Tell what is wrong and end the command."""
    err.print(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(code)
