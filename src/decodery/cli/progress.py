"""What is shown while a user waits: on a terminal only, on standard error, and from a second on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from time import monotonic
from typing import Any, Self

from rich.markup import escape

from decodery.cli.common import err

PATIENCE = 1.0
"""Seconds that nobody needs an explanation for."""


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for, where it takes longer than a second."""
    if not err.is_terminal:
        yield
        return
    shown: list[Any] = []

    def show() -> None:
        shown.append(err.status(f"[dim]{escape(what)} ...[/dim]"))
        shown[0].start()

    timer = Timer(PATIENCE, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # else it might begin to show what is over
        for status in shown:
            status.stop()


class Reading:
    """A bar of the prompt tokens read, where reading them all will take longer than a second; to be called with figures."""

    def __init__(self, quiet: bool = False) -> None:
        self._off = quiet or not err.is_terminal
        self._bar: Any = None
        self._task: Any = None
        self._begun: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, read: int, total: int) -> None:
        """So many tokens of so many are read."""
        if self._off:
            return
        if self._begun is None or read < self._begun[1]:
            self._begun = monotonic(), read
        start, before = self._begun
        if read >= total:
            self._begun = None
            self.__exit__()
        elif self._bar is not None:
            self._bar.update(self._task, completed=read)
        elif read > before and (monotonic() - start) * (total - before) / (read - before) > PATIENCE:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (
                TextColumn("[dim]reading the prompt[/dim]"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("tokens"),
            )
            self._bar = Progress(*columns, console=err, transient=True)
            self._task = self._bar.add_task("", total=total, completed=read)
            self._bar.start()
