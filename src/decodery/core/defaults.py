"""What is taken where a call does not say: the environment may set it once for all calls."""

from __future__ import annotations

import os
from typing import overload


@overload
def default_of(option: str, otherwise: str) -> str: ...
@overload
def default_of(option: str, otherwise: None) -> str | None: ...
def default_of(option: str, otherwise: str | None) -> str | None:
    """``$DECODERY_OPTION`` where it is set (``DECODERY_BACKEND``, ``DECODERY_PLAN``, a role ...), else ``otherwise``."""
    return os.environ.get(f"DECODERY_{option.upper()}") or otherwise
