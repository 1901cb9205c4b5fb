"""Contexts that a guide declares beside the session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from decodery.core.values import LOGITS, Want
from decodery.model.arena import Arena
from decodery.model.variant import PLAIN, Variant


class Opens(Protocol):
    """What can open a session: a model."""

    def arena(self, lanes: int = 1) -> Arena: ...

    def session(self, tokens: Sequence[int] = (), arena: Arena | None = None) -> Any: ...


@dataclass(frozen=True)
class Companion:
    """A second context that a guide declares: its own prompt, followed by the same new tokens as the session.

    ``model``: another model that reads it (None: the session's own). ``variant``: how the session's own model is run.
    ``want``: what its rows must hold besides logits.
    """

    prompt: tuple[int, ...]
    model: Opens | None = None
    variant: Variant = PLAIN
    want: Want = LOGITS
