"""What is kept in the cache folder, so that the next start need not do it again: converted models, measurements, digests."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from decodery.core.files import write_whole

RECENT = 2_000_000_000
"""Nanoseconds for which a file counts as just written: a change soon after may leave it with the same time stamps."""


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
"""What files of weights are called."""


def cache_dir() -> Path:
    """Where converted models and measurements go: ``$DECODERY_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("DECODERY_CACHE") or platformdirs.user_cache_dir("decodery"))


def kept(kind: str, facts: object, measure: Callable[[], Any]) -> Any:
    """What ``measure`` gives (JSON), from an earlier start where machine, threads, torch and ``facts`` were the same.

    Where the cache folder cannot be written, ``measure`` is called at every start.
    """
    import torch  # here, for digests are looked up before it is needed

    machine = (platform.node(), os.cpu_count(), torch.get_num_threads(), torch.__version__)
    return found_before(kind, (machine, facts), measure)


def digest(path: Path) -> str:
    """A digest of the whole file; computed anew only where its path, size, times or inode are others than before."""

    def compute() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    state = path.stat()
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) < RECENT:
        return compute()
    facts = (str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
    return str(found_before("digests", facts, compute))


def digest_of_folder(folder: Path, weights: bool = True) -> str:
    """A digest of all files in a model's folder: weights of any kind (unless they do not matter), configurations,
    tokenizer, code.

    Folders inside are left out, unless an index of weights names files in them.
    """
    files = {file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")}
    if not weights:
        files = {file for file in files if file.suffix not in WEIGHTS}
        return hashlib.sha256(repr([(file.name, digest(file)) for file in sorted(files)]).encode()).hexdigest()
    for index in folder.glob("*.index.json"):
        with suppress(OSError, ValueError, KeyError, AttributeError):
            files |= {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
    facts = [(str(file.relative_to(folder)), digest(file)) for file in sorted(files) if file.is_file()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def found_before(kind: str, facts: object, make: Callable[[], Any]) -> Any:
    """What ``make`` gives (JSON), from an earlier start where ``facts`` were the same, whatever the machine."""
    path = cache_dir() / kind / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        return json.loads(path.read_text())
    found = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(found))
    return found
