"""What is taken where a call does not say: the environment may set it once for all calls."""

from __future__ import annotations

import os
from typing import overload

from decodery.core.errors import DecoderyError


@overload
def default_of(option: str, otherwise: str) -> str: ...
@overload
def default_of(option: str, otherwise: None) -> str | None: ...
def default_of(option: str, otherwise: str | None) -> str | None:
    """``$DECODERY_OPTION`` where it is set (``DECODERY_BACKEND``, ``DECODERY_PLAN``, a role ...), else ``otherwise``."""
    return os.environ.get(f"DECODERY_{option.upper()}") or otherwise


def threads_wanted() -> int | None:
    """How many threads a forward may use, where ``$DECODERY_THREADS`` says it. Raises ``DecoderyError`` for no number."""
    told = default_of("threads", None)
    if told is None:
        return None
    if not told.isdecimal() or int(told) < 1:
        raise DecoderyError(f"DECODERY_THREADS must be a whole number from 1 on, not {told!r}")
    return int(told)
