"""Import paths of earlier versions, kept alive for parts written against them; each use warns where the name lives now."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED = {
    "decodery.engine": ("decodery.run.api", "decodery.run.answer", "decodery.run.output"),
    "decodery.errors": ("decodery.core.errors",),
    "decodery.law": ("decodery.core.law", "decodery.core.roles"),
    "decodery.model.thin": ("decodery.change.layer_speedup", "decodery.model.variant"),
    "decodery.recipe": ("decodery.run.recipe", "decodery.run.spec"),
    "decodery.registry": ("decodery.run.registry",),
    "decodery.tree": ("decodery.core.tree",),
    "decodery.words": (
        "decodery.core.values",
        "decodery.core.step",
        "decodery.core.roles",
        "decodery.core.part",
        "decodery.model.variant",
    ),
}
"""Former module -> the modules that hold its names now."""


class Former(ModuleType):
    """A module that is no file: it looks its names up where they live now, when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for home in MOVED[self.__name__]:
                if hasattr(module := import_module(home), name):
                    warnings.warn(f"{self.__name__}.{name} is {home}.{name} now", DeprecationWarning, stacklevel=2)
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def install() -> None:
    """Let ``import`` find the former paths."""
    for name in MOVED:
        sys.modules[name] = Former(name)
