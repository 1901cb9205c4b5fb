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
from typer.core import TyperGroup

from decodery.cli.settings import origins, settle
from decodery.core.errors import DecoderyError
from decodery.run.registry import nearest


class Commands(TyperGroup):
    """The commands; a name that is none of theirs is told with those there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args[0] not in known:
            ctx.fail(f"There is no command {args[0]!r}.{nearest(args[0], known)} Commands: {', '.join(known)}.")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="One decoding engine: choose how tokens are chosen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


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
        Path | None,
        typer.Option(envvar="DECODERY_CONFIG", help="YAML with an entry for each option that has another default."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """One decoding engine: choose how tokens are chosen.

    Every option of every command may also come from the environment (DECODERY_MODEL, DECODERY_MAX_NEW_TOKENS ...) or from the
    configuration file; the command line counts first, then the environment, then the file.
    """
    global tracebacks
    tracebacks = debug
    show_log()
    path = config or Path(typer.get_app_dir("decodery")) / "config.yaml"
    with errors():
        if config is not None and not path.is_file():
            raise DecoderyError(f"no such config file: {path}")
        settle(context, path if path.is_file() else None)


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


def sound(option: str, text: str) -> None:
    """Raise ``DecoderyError`` where an option's text came as bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DecoderyError(f"--{option} is no text in UTF-8 at character {error.start}") from error


def can_be_written(option: str, path: Path) -> None:
    """Raise ``DecoderyError`` where what an option names cannot be written, which is better said before the work."""
    if not path.absolute().parent.is_dir():
        raise DecoderyError(f"--{option} {path} cannot be written: there is no folder {path.absolute().parent}")


def conversation(model: Any, text: str, system: str, raw: bool) -> Any:
    """The prompt as a conversation, or as it is where that is wanted or the model has no chat template."""
    sound("system", system)
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
def errors(context: typer.Context | None = None) -> Iterator[None]:
    """Print what the user can mend and exit with 2; no traceback unless asked for.

    ``context``: of a command, whose values from elsewhere than the command line are then named as well.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read the answer has enough of it; click then ends without a word
        raise
    except (DecoderyError, OSError, UnicodeError) as error:
        if tracebacks:
            raise
        said = _sentence(error)
        others = origins(context, said) if context is not None else ""
        fail(said + (f"\n(not from the command line: {others})" if others else ""))
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
