"""Small measurements kept in the cache folder, so that the next start need not repeat them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs
import torch


def cache_dir() -> Path:
    """Where converted models and measurements go: ``$DECODERY_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("DECODERY_CACHE") or platformdirs.user_cache_dir("decodery"))


def kept(kind: str, facts: object, measure: Callable[[], Any]) -> Any:
    """What ``measure`` gives (JSON), from an earlier start where machine, threads, torch and ``facts`` were the same.

    A folder that cannot be written is no hindrance: it is measured anew then.
    """
    machine = (platform.node(), os.cpu_count(), torch.get_num_threads(), torch.__version__)
    path = cache_dir() / kind / f"{hashlib.sha256(repr((machine, facts)).encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError):
        return json.loads(path.read_text())
    found = measure()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(found))
        partial.replace(path)
    return found
