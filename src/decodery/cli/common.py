"""What the commands share: the options, how parts and models are made of them, and how errors are told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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


COMMANDS_WITH_DEFAULTS = ("run", "chat", "compare", "profile", "bench", "index", "doctor")
DEFAULTS = {"backend", "constrain", "draft", "dtype", "guide", "max_new_tokens", "model", "search", "system", "verify"}
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
    path = config or Path(typer.get_app_dir("decodery")) / "config.yaml"
    with errors():
        if config is not None and not path.is_file():
            raise DecoderyError(f"no such config file: {path}")
        if path.is_file():
            context.default_map = dict.fromkeys(COMMANDS_WITH_DEFAULTS, _defaults(path))


def _defaults(path: Path) -> dict[str, str | list[str]]:
    """What a configuration file sets, each value as it is written there, as on the command line."""
    try:
        entries = yaml.load(read(path), yaml.BaseLoader) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise DecoderyError(f"the config file {path} is not YAML: {error}") from error
    if not isinstance(entries, dict):
        raise DecoderyError(f"the config file {path} is a mapping such as 'model: smollm2', not {entries!r:.40}")
    if unknown := entries.keys() - DEFAULTS:
        raise DecoderyError(f"{path} may set {', '.join(sorted(DEFAULTS))}; not {min(unknown, key=str)!r}")
    for name, value in entries.items():
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts) or (isinstance(value, list) and name != "guide"):
            raise DecoderyError(f"{path}: {name} is written as on the command line, not as {value!r}")
        entries[name] = texts if name == "guide" else value
    return {name: value for name, value in entries.items() if value not in ("", [""])}


def read(path: Path) -> str:
    """The text of a file in UTF-8; ``DecoderyError`` where it is something else."""
    return decoded(path.read_bytes(), str(path))


def decoded(data: bytes, name: str) -> str:
    """Bytes in UTF-8 as text, whatever the locale says; a byte order mark is no part of it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecoderyError(f"{name} is not text in UTF-8: {error}") from error


def prompt_of(prompt: str) -> str:
    """The prompt; ``-`` reads standard input, as it is."""
    return decoded(sys.stdin.buffer.read(), "standard input") if prompt == "-" else prompt


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
        try:
            return Recipe.from_text(read(file))
        except RecursionError as error:
            raise DecoderyError(f"the recipe {file} is nested too deeply") from error
    guides = [*guide, *([] if temperature is None else [f"temperature:{temperature}"])]
    return Recipe.of(draft, verify or None, guides, constrain, search or None)


def load_model(spec: str, dtype: str, backend: str, layer_speedup: int = 1) -> Any:
    """A loaded model."""
    silence()
    from decodery.model.load import load

    return load(spec, dtype=dtype, backend=backend, layer_speedup=layer_speedup)


def text_of(spec: str) -> Any:
    """A model's tokenizer, without the model."""
    silence()
    from decodery.model.load import load_text

    return load_text(spec)


def silence() -> None:
    """No progress bars and warnings of transformers between the lines."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def conversation(model: Any, text: str, system: str, raw: bool) -> Any:
    """The prompt as a conversation, or as it is where that is wanted or the model has no chat template."""
    if raw or model.text.tokenizer.chat_template is None:
        return text
    if not text.strip():
        raise DecoderyError("the prompt is empty")
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]


def tell(text: str, style: str = "") -> None:
    """Write a piece of an answer as it is: nothing is wrapped, expanded or left out. Colours come on a terminal only."""
    if text and style and out.is_terminal and not out.no_color:
        text = f"{style}{text}\x1b[0m"
    sys.stdout.write(text)
    sys.stdout.flush()


GREEN = "\x1b[32m"


@contextmanager
def errors() -> Iterator[None]:
    """Print what the user can mend and exit with 2; no traceback unless asked for."""
    try:
        yield
    except BrokenPipeError:  # whoever read the answer has enough of it; click then ends without a word
        raise
    except (DecoderyError, OSError, UnicodeError) as error:
        if tracebacks:
            raise
        fail(_sentence(error))
    except KeyboardInterrupt:
        fail("stopped", 130)


def _sentence(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError) and "surrogates" not in error.reason:
        missing = ascii(error.object[error.start : error.end][:10])
        return f"the output cannot show {missing}, for its encoding is {error.encoding}; set PYTHONIOENCODING=utf-8"
    if isinstance(error, UnicodeError):
        return f"this is not text in UTF-8: {error}"
    return str(error)


def fail(message: str, code: int = 2) -> NoReturn:
    """Tell what is wrong and end the command."""
    err.print(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(code)
