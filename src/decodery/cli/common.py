"""What the commands share: the options, how parts and models are made of them, and how errors are told."""

from __future__ import annotations

import logging
import os
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
DEFAULTS = {"backend", "change", "device", "dtype", "max_new_tokens", "model", "revision", "system", *PARTS}
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
            from decodery.core.written import from_yaml, plain

            entries = plain(from_yaml(path.read_text()) or {})
            if not isinstance(entries, dict):
                raise DecoderyError(f"{path} must be a mapping such as 'model: smollm2', not {entries!r}")
            for name in entries:
                if name not in DEFAULTS:
                    known = f"{', '.join(sorted(DEFAULTS))}; not {name!r}.{nearest(name, DEFAULTS)}"
                    raise DecoderyError(f"{path} may set {known}")
                if name in PARTS and PARTS[name].many and not isinstance(entries[name], list):
                    entries[name] = [entries[name]]
            context.default_map = dict.fromkeys(COMMANDS_WITH_DEFAULTS, entries)


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
