"""Decodery: one decoding engine for generative sequence models. You choose how tokens are chosen.

import decodery
model = decodery.load("smollm2")
print(decodery.decode(model, "The capital of France is", draft="recycling").text)
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from decodery.core import former
from decodery.core.defaults import wait_passively

if TYPE_CHECKING:
    from decodery.core.errors import DecoderyError
    from decodery.draft.lib.memory import load_memory, save_memory
    from decodery.inspect.compare import compare
    from decodery.model.model import Model
    from decodery.model.resolve import resolve
    from decodery.run.answer import Stream
    from decodery.run.api import decode, stream
    from decodery.run.load import load
    from decodery.run.output import Output
    from decodery.run.recipe import Recipe
    from decodery.run.score import score

__version__ = "0.1.0"
__all__ = [
    "DecoderyError",
    "Model",
    "Output",
    "Recipe",
    "Stream",
    "compare",
    "decode",
    "load",
    "load_memory",
    "resolve",
    "save_memory",
    "score",
    "stream",
]

_HOMES = {
    "decode": "decodery.run.api",
    "stream": "decodery.run.api",
    "score": "decodery.run.score",
    "compare": "decodery.inspect.compare",
    "Output": "decodery.run.output",
    "Stream": "decodery.run.answer",
    "load": "decodery.run.load",
    "resolve": "decodery.model.resolve",
    "Model": "decodery.model.model",
    "load_memory": "decodery.draft.lib.memory",
    "save_memory": "decodery.draft.lib.memory",
    "Recipe": "decodery.run.recipe",
    "DecoderyError": "decodery.core.errors",
}


former.install()
wait_passively()
logging.getLogger(__name__).addHandler(logging.NullHandler())  # the library never prints; its user chooses


def __getattr__(name: str) -> Any:
    # Lazy: `decodery --help` and `decodery list` should not wait for torch.
    if name == "hf":
        return import_module("decodery.hf")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'decodery' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "hf"])
