"""Errors that say what was wrong, where, and what would work. The command line prints them and exits with 2."""

from __future__ import annotations


class DecoderyError(ValueError):
    """The user can mend this: the message says how."""


class UnknownPart(DecoderyError):
    """No such part, or no such parameter of a part."""


class PartsClash(DecoderyError):
    """Two chosen parts, or a part and the model, cannot work together."""


class BadModel(DecoderyError):
    """The model cannot be found, read or run."""


class BadStore(DecoderyError):
    """The datastore cannot be found, read or written."""


class BadMemory(DecoderyError):
    """A drafter's saved memory cannot be found, read or written, or is of another tokenizer."""


class BadTemplate(DecoderyError):
    """A template of rank paths cannot be found, read or written, or is no tree."""


class BadPrompt(DecoderyError):
    """The prompt is empty, too long or of the wrong type."""


class BadLogits(DecoderyError):
    """The model answered NaN."""


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return line if " " in line else f"{type(error).__name__} {line}".strip()
