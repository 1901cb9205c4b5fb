"""The command line: run, chat, compare, profile, bench, report, sweep, data, index, fit-tree, list, show, laws, doctor."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

from decodery.cli import answer, data, figures, parts, prepare
from decodery.cli.common import app

__all__ = ["answer", "app", "data", "figures", "main", "parts", "prepare"]


def main() -> None:
    """The ``decodery`` command."""
    # Imports make many objects and drop none: to look for cycles at each 700 takes a fifth of their time.
    gc.set_threshold(100_000)
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
    # To take torch and OpenVINO down in order takes most of a second, and nothing is left to save.
    os._exit(code)
