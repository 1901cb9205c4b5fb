"""No constraint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from decodery.core.roles import Constraint


@dataclass
class Free(Constraint):
    """Everything may follow."""

    def advance(self, state: Any, token: int) -> Any:
        return state

    def mask(self, state: Any) -> None:
        return None
