"""The command line: run, chat, compare, profile, bench, index, fit-tree, list, show, laws, doctor."""

from __future__ import annotations

from decodery.cli import answer, figures, parts, prepare
from decodery.cli.common import app

__all__ = ["answer", "app", "figures", "main", "parts", "prepare"]


def main() -> None:
    """The ``decodery`` command."""
    app()
