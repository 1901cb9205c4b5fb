"""Logit bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

from annotated_types import Lt
from pydantic import AllowInfNan

from decodery.core.part import Model
from decodery.core.roles import Guide
from decodery.core.values import Rows, Tensor


@dataclass
class LogitBias(Guide):
    """Adds ``bias[token]`` (in logits) to the tokens named, by id or by text; ``-inf`` forbids a token.

    A text must be one token of the model, leading space included; in a recipe, digits are an id. Names of the same token
    add up. ``bind`` raises ``ValueError`` where a text is not one token or an id is not in the vocabulary.
    """

    example = "logit-bias:bias={13: -5}"
    specimens = ({"bias": {0: 1.0, "b": -0.5}},)
    bias: dict[int | str, Annotated[float, AllowInfNan(True), Lt(math.inf)]]

    def bind(self, model: Model) -> Self:
        self._bias: dict[int, float] = {}
        for key, value in self.bias.items():
            token = _single(key, model) if isinstance(key, str) else key
            if not 0 <= token < model.vocab:
                raise ValueError(f"logit-bias: token {token} is outside the vocabulary, 0 to {model.vocab - 1}")
            self._bias[token] = self._bias.get(token, 0.0) + value
        return self

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        logits[:, list(self._bias)] += logits.new_tensor(list(self._bias.values()))
        return logits


def _single(text: str, model: Model) -> int:
    tokens = model.pieces(text)
    if len(tokens) != 1:
        raise ValueError(f"logit-bias: {text!r} is {len(tokens)} tokens here, {tokens}; name single tokens or ids")
    return tokens[0]
