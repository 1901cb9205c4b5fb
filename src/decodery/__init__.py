"""Decodery: one decoding engine for generative sequence models. You choose how tokens are chosen.

import decodery
model = decodery.load("smollm2")
print(decodery.decode(model, "The capital of France is", draft="recycling").text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decodery.engine import Output, Stream, decode, stream
    from decodery.errors import DecoderyError
    from decodery.memory import load_memory, save_memory
    from decodery.model.load import load, resolve
    from decodery.model.model import Model
    from decodery.recipe import Recipe

__version__ = "0.1.0"
__all__ = [
    "DecoderyError",
    "Model",
    "Output",
    "Recipe",
    "Stream",
    "decode",
    "load",
    "load_memory",
    "resolve",
    "save_memory",
    "stream",
]

_HOMES = {
    "decode": "decodery.engine",
    "stream": "decodery.engine",
    "Output": "decodery.engine",
    "Stream": "decodery.engine",
    "load": "decodery.model.load",
    "resolve": "decodery.model.load",
    "Model": "decodery.model.model",
    "load_memory": "decodery.memory",
    "save_memory": "decodery.memory",
    "Recipe": "decodery.recipe",
    "DecoderyError": "decodery.errors",
}


def __getattr__(name: str) -> Any:
    # Lazy: `decodery --help` and `decodery list` should not wait for torch.
    if name == "hf":
        return import_module("decodery.hf")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'decodery' has no attribute {name!r}")
