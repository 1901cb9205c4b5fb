"""Lines that a person types or a program sends: edited, remembered and searched on a terminal, read as they are elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import platformdirs
from rich.console import Console

from decodery.cli.reading import decoded


class Lines:
    """Reads one message after another. On a terminal: line editing, history across sessions (Ctrl-R searches it), and a
    pasted text of several lines as one message."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._session: Any = None
        if sys.stdin.isatty() and sys.stdout.isatty():
            from prompt_toolkit import PromptSession
            from prompt_toolkit.history import FileHistory, History, InMemoryHistory

            class Kept(FileHistory):
                def store_string(self, string: str) -> None:  # bytes that were no UTF-8 cannot be written as they came
                    super().store_string(string.encode("utf-8", "replace").decode())

            history: History
            try:
                place = Path(platformdirs.user_state_dir("decodery"))
                place.mkdir(parents=True, exist_ok=True)
                history = Kept(str(place / "history"))
            except OSError:
                history = InMemoryHistory()
            self._session = PromptSession(history=history, enable_history_search=True)

    def read(self, prompt: str, text: str = "") -> str:
        """One message; ``text`` is there to be edited. Raises ``EOFError`` at the end, ``DecoderyError`` for bytes that are
        no UTF-8."""
        if self._session is not None:
            from prompt_toolkit.formatted_text import FormattedText

            found: str = self._session.prompt(FormattedText([("bold ansicyan", prompt)]), default=text)
            return decoded(found.encode("utf-8", "surrogateescape"), "the message")
        self._out.print(f"[bold cyan]{prompt}[/bold cyan]", end="")
        data = sys.stdin.buffer.readline()
        if not data:
            raise EOFError
        return decoded(data, "the message").rstrip("\r\n")
