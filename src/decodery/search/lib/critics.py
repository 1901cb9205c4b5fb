"""A potential over answers and their beginnings, from a function of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from decodery.core.errors import DecoderyError
from decodery.core.part import Model
from decodery.run.outside import function_at


class Critic:
    """Log-potentials (nats) of answers, each computed once. Without a function all are zero."""

    def __init__(self, function: Callable[..., Any] | str | None, model: Model) -> None:
        self._function = function_at(function) if isinstance(function, str) else function
        self._tokenizer = model.matcher_tokenizer() if function is not None else None
        self._eos = model.eos
        self._known: dict[tuple[tuple[int, ...], bool], float] = {}

    def __call__(self, tokens: Sequence[int], ended: bool) -> float:
        """The potential of an answer of these tokens. Raises ``DecoderyError`` where the function gives no number."""
        if self._function is None:
            return 0.0
        key = tuple(tokens), ended
        if key not in self._known:
            words = [token for token in tokens if token not in self._eos]
            text: bytes = self._tokenizer.decode_bytes(words) if self._tokenizer is not None else b""
            try:
                value = float(self._function(text, ended))
            except Exception as error:
                raise DecoderyError(f"the critic raised {type(error).__name__} on {text[-60:]!r}: {error}") from error
            if math.isnan(value) or value == math.inf:
                raise DecoderyError(f"the critic gave {value} on {text[-60:]!r}; it must give a finite number or -inf")
            self._known[key] = value
        return self._known[key]
