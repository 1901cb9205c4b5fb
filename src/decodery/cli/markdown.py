"""Answers in Markdown, rendered as they come."""

from __future__ import annotations

from time import monotonic
from typing import Any, Self

from rich.console import Console

from decodery.run.output import Piece

PERIOD = 0.1
"""Seconds between two pictures of the block that grows."""
FENCES = ("```", "~~~")


class Rendered:
    """Shows pieces of a text in Markdown: blocks that are complete are printed once, the one that grows is drawn anew."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._rest, self._drawn = "", 0.0
        self._live: Any = None
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __call__(self, piece: Piece) -> None:
        """Show what a step added."""
        done, self._rest = split(self._rest + piece.text)
        for block in done:
            self._print(block)
        if self._rest and monotonic() - self._drawn >= PERIOD:
            self._draw()

    def __exit__(self, *error: object) -> None:
        if self._rest:
            self._print(self._rest)
        self._clear()

    def _draw(self) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(rendered(self._rest), refresh=True)
        self._drawn = monotonic()

    def _print(self, block: str) -> None:
        self._clear()
        if block.strip():
            if self._begun:
                self._console.print()
            self._console.print(rendered(block))
            self._begun = True

    def _clear(self) -> None:
        """Take the picture of the block that grew away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def split(text: str) -> tuple[list[str], str]:
    """The blocks of a text that are complete, for a blank line follows outside of fenced code, and what is left."""
    blocks, lines, fence = list[str](), list[str](), ""
    *whole, last = text.split("\n")
    for line in whole:
        mark = line.lstrip()[:3]
        if mark in FENCES and fence in ("", mark):
            fence = "" if fence else mark
        if line.strip() or fence:
            lines.append(line)
        elif lines:
            blocks.append("\n".join(lines))
            lines = []
    return blocks, "\n".join([*lines, last])


def rendered(text: str) -> Any:
    """A text in Markdown as rich shows it; lines end where they end in the text, and what looks like HTML is text."""
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown

    found = Markdown("")
    found.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)
    for child in (child for token in found.parsed for child in token.children or ()):
        if child.type == "softbreak":
            child.type = "hardbreak"
    return found
