"""Files and folders that are there whole or not at all, whatever fails and whoever else writes."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOG = logging.getLogger(__name__)

PATIENCE = 3600.0
"""Seconds that one process waits for another that makes the same folder: longer than any conversion should take."""


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write a file (text in UTF-8) so that its readers find the former content or the new one, and nothing in between.

    A symbolic link stays one: the file behind it is replaced. Permissions stay as they were. Raises ``OSError`` with a
    sentence.
    """
    place = Path(path).expanduser().resolve()
    partial = _partial(place)
    try:
        if place.exists() and not place.is_file():
            raise OSError("it exists and is not a file")
        with partial.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, partial)
        os.replace(partial, place)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_folder(folder: Path, build: Callable[[Path], object]) -> None:
    """Make a new folder: ``build`` fills a partial one beside it, which gets its name when it is complete.

    Raises ``OSError`` with a sentence, and whatever ``build`` raises; neither leaves anything.
    """
    partial = _partial(folder)
    try:
        with _sentence(folder):
            partial.mkdir(parents=True)
        build(partial)
        with _sentence(folder):
            for file in filter(Path.is_file, partial.rglob("*")):
                _to_disk(file)
            if folder.exists():
                raise OSError("it exists already")
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_once(folder: Path, build: Callable[[Path], object]) -> Path:
    """The folder, which is made now (see ``write_folder``) unless it is there; of several processes only one makes it.

    Raises ``OSError`` with a sentence, and whatever ``build`` raises.
    """
    if folder.is_dir():
        return folder
    with _sentence(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not folder.is_dir():
            for leftover in folder.parent.glob(f"{folder.name}.*.partial"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            write_folder(folder, build)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is in here for this path; the others say in the log that they wait.

    Raises ``OSError`` with a sentence where the lock cannot be had.
    """
    lock = FileLock(f"{path}.lock")
    with _sentence(path):
        try:
            lock.acquire(timeout=1)
        except Timeout:
            LOG.info("another process is making %s; waiting for it ...", path)
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                wait = f"another process has been making it for {PATIENCE / 60:.0f} minutes"
                raise OSError(f"{wait}; end that process, or try again later") from None
    try:
        yield
    finally:
        lock.release()


def _partial(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")


def _to_disk(file: Path) -> None:
    with suppress(OSError), file.open("rb") as opened:  # some systems do not take this for files opened to read
        os.fsync(opened.fileno())


@contextmanager
def _sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot make {path}: {error.strerror or error}") from error
