"""What the commands share: the options, how parts and models are made of them, and how errors are told."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from decodery.core.errors import DecoderyError
from decodery.run.registry import ROLES, nearest

app = typer.Typer(
    help="One decoding engine: choose how tokens are chosen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


COMMANDS_WITH_DEFAULTS = ("run", "chat", "compare", "profile", "bench", "index", "doctor", "fit-tree")
PARTS = {name: role for name, role in ROLES.items() if role.recipe}
DEFAULTS = {"backend", "change", "device", "dtype", "max_new_tokens", "model", "plan", "revision", "system", *PARTS}
"""What a configuration file may set."""

tracebacks = False


def _version(wanted: bool) -> None:
    if wanted:
        from decodery import __version__

        print(f"decodery {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    config: Annotated[
        Path | None, typer.Option(envvar="DECODERY_CONFIG", help="YAML with defaults: model, draft, guide, ...")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """One decoding engine: choose how tokens are chosen."""
    global tracebacks
    tracebacks = debug
    show_log()
    path = config or Path(typer.get_app_dir("decodery")) / "config.yaml"
    with errors():
        if config is not None and not path.is_file():
            raise DecoderyError(f"no such config file: {path}")
        if path.is_file():
            context.default_map = dict.fromkeys(COMMANDS_WITH_DEFAULTS, _defaults(path))


def _defaults(path: Path) -> dict[str, Any]:
    """What a configuration file sets, each value as it is written there, as on the command line."""
    from decodery.core.written import from_yaml, plain

    try:
        entries = plain(from_yaml(read(path)) or {})
    except DecoderyError as error:
        raise DecoderyError(f"the config file {path}: {error}") from error
    if not isinstance(entries, dict):
        raise DecoderyError(f"{path} must be a mapping such as 'model: smollm2', not {entries!r:.40}")
    for name, value in entries.items():
        if name not in DEFAULTS:
            known = f"{', '.join(sorted(DEFAULTS))}; not {name!r}.{nearest(str(name), DEFAULTS)}"
            raise DecoderyError(f"{path} may set {known}")
        several = name == "change" or (name in PARTS and PARTS[name].many)
        if several and not isinstance(value, list):
            entries[name] = [value]
        elif not several and isinstance(value, (list, dict)):
            raise DecoderyError(f"{path}: {name} is written as on the command line, not as {value!r:.60}")
    return entries


def read(path: Path) -> str:
    """The text of a file in UTF-8; ``DecoderyError`` where it is something else."""
    return decoded(path.read_bytes(), str(path))


def decoded(data: bytes, name: str) -> str:
    """Bytes in UTF-8 as text, whatever the locale says; a byte order mark is no part of it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecoderyError(f"{name} is not text in UTF-8: {error}") from error


def prompt_of(prompt: str | None) -> str:
    """The prompt; without one, and for ``-``, standard input is read as it is, unless that is a terminal."""
    if prompt is None and sys.stdin.isatty():
        raise DecoderyError("there is no prompt: give one, name a file with -f FILE, or pipe a text in")
    return decoded(sys.stdin.buffer.read(), "standard input") if prompt in (None, "-") else prompt


def text_of(spec: str) -> Any:
    """A model's tokenizer, without the model."""
    silence()
    from decodery.model.load import load_text

    return load_text(spec)


def silence() -> None:
    """No progress bars and warnings of transformers between the lines; it reads these when it is imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class Told(logging.Handler):
    """Shows what the library logs, such as that it converts a model, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"[dim]{escape(record.getMessage())}[/dim]")


def show_log() -> None:
    """Show the library's log from INFO upwards."""
    library = logging.getLogger("decodery")
    library.setLevel(logging.INFO)
    if not any(isinstance(handler, Told) for handler in library.handlers):
        library.addHandler(Told())


def conversation(model: Any, text: str, system: str, raw: bool) -> Any:
    """The prompt as a conversation, or as it is where that is wanted or the model has no chat template."""
    if raw or model.text.tokenizer.chat_template is None:
        if system:
            why = "--raw takes the prompt as it is" if raw else f"{model.name} has no chat template"
            raise DecoderyError(f"the system message has no effect, for {why}; leave it out (--system '')")
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
