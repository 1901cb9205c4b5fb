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


SPINS = "3000"
"""So often a thread of torch looks whether the others are done before it lets another process have the core."""


def wait_passively() -> None:
    """Let torch's threads give their cores away while they wait for each other, unless the environment says how they wait.

    By default they spin for milliseconds: where another process keeps one of the cores busy, a forward takes several times as
    long. Has an effect only before torch is imported, and with GNU's OpenMP (torch on Linux).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def threads_wanted() -> int | None:
    """How many threads a forward may use, where ``$DECODERY_THREADS`` says it. Raises ``DecoderyError`` for no number."""
    told = default_of("threads", None)
    if told is None:
        return None
    if not told.isdecimal() or int(told) < 1:
        raise DecoderyError(f"DECODERY_THREADS must be a whole number from 1 on, not {told!r}")
    return int(told)
