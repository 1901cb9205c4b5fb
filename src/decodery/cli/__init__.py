"""The command line: run, chat, compare, profile, bench, index, fit-tree, list, show, laws, doctor."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

from decodery.cli import answer, figures, parts, prepare
from decodery.cli.common import app

__all__ = ["answer", "app", "figures", "main", "parts", "prepare"]


def main() -> None:
    """The ``decodery`` command."""
    gc.set_threshold(
        100_000
    )  # imports make much and drop nothing: to look for cycles each 700 objects takes a fifth of them
    code = 0
    try:
        app()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # to take torch and OpenVINO down in order takes most of a second, and nothing is left to save
