"""Texts from files and pipes: in UTF-8, whatever the locale says."""

from __future__ import annotations

import sys
from pathlib import Path

from decodery.core.errors import DecoderyError


def read(path: Path) -> str:
    """The text of a file in UTF-8; ``DecoderyError`` where it is something else."""
    return decoded(path.read_bytes(), str(path))


def decoded(data: bytes, name: str) -> str:
    """Bytes in UTF-8 as text, whatever the locale says; a byte order mark is no part of it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecoderyError(f"{name} is not text in UTF-8: {error}; convert it first (iconv -t utf-8)") from error


def prompt_of(prompt: str | None) -> str:
    """The prompt; without one, and for ``-``, standard input is read as it is, unless that is a terminal."""
    if prompt is None and sys.stdin.isatty():
        raise DecoderyError("there is no prompt: give one, name a file with -f FILE, or pipe a text in")
    return decoded(sys.stdin.buffer.read(), "standard input") if prompt in (None, "-") else prompt
