"""Texts that may be given as they are or by the file that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def told(given: str, begins: Sequence[str] = ()) -> str:
    """The text itself where it begins like one or has several lines; else what is in the file of this name.

    Raises ``ValueError`` where there is no such file.
    """
    text = given.strip()
    if "\n" in text or text.startswith(tuple(begins)):
        return text
    try:
        if Path(text).is_file():
            return Path(text).read_text("utf-8-sig")
    except OSError:  # such as a name that is too long
        pass
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} is not text in UTF-8: {error}") from error
    raise ValueError(f"no such file: {text:.200}")
