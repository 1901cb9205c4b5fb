"""What every part is: a dataclass whose fields are its parameters; and what programs yield."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

from decodery.core.parameters import Parameters
from decodery.core.step import Step
from decodery.core.values import LOGITS, Cap, Rows, Tensor, Want
from decodery.model.arena import Arena
from decodery.model.session import Ask, Session

T = TypeVar("T")
Asking = Generator[list[Ask], list[Rows], T]
"""What asks for passes on the way to a result: yields lists of asks and is sent their rows."""

Program = Generator[list[Ask] | Step, list[Rows], None]
"""A decoding program: yields asks to get their rows, and a ``Step`` for each turn."""


class Model(Protocol):
    """What a part may ask of the loaded model when it is bound to it."""

    @property
    def eos(self) -> frozenset[int]: ...

    @property
    def vocab(self) -> int: ...

    @property
    def can(self) -> frozenset[Cap]: ...

    @property
    def missing(self) -> Mapping[Cap, str]:
        """Why it cannot do the rest."""

    def arena(self, lanes: int = 1) -> Arena: ...

    def session(self, tokens: Sequence[int] = (), arena: Arena | None = None) -> Session: ...

    def encode(self, text: str) -> list[int]: ...

    def pieces(self, text: str) -> list[int]:
        """Tokens of a piece of a longer text: no special token is added."""

    def fingerprint(self) -> str:
        """Tells tokenizers apart: where it is equal, token ids mean the same."""

    def matcher_tokenizer(self) -> Any:
        """The vocabulary as llguidance reads it."""

    def companion(self, spec: object) -> Model:
        """Another model of the same vocabulary, loaded like this one; raises ``PartsClash`` where they differ."""

    @property
    def depth(self) -> int:
        """How many layers it has."""

    def default_layers(self) -> tuple[int, ...]:
        """The layers of a quick draft by the model itself."""

    def logits(self, states: Tensor) -> Tensor:
        """``[n, d]`` outputs of any layer -> ``[n, V]``: what the last norm and the head make of them; ``Cap.LAYERS``."""


@dataclass
class Part(Parameters):
    """Anything a user may name: a dataclass whose fields are its parameters.

    Class attributes say what it is: ``paper`` where it comes from, ``lossless`` whether the output keeps the target's law.
    """

    paper: ClassVar[str] = ""
    lossless: ClassVar[bool] = True
    specimens: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Parameters under which the law suite examines the part on a toy model of the tokens a, b and c."""
    example: ClassVar[str] = ""
    """A spec for people, where the name alone says too little: ``choice:[yes,no]``."""

    @property
    def needs(self) -> frozenset[Cap]:
        """What the model must be able to do."""
        return frozenset()

    @property
    def want(self) -> Want:
        """What each pass must return besides logits; read after ``bind``."""
        return LOGITS

    def bind(self, model: Model) -> Self:
        """Make this part ready for a model: look token ids up, load a second model.

        It is called on a copy for every request, so it may set attributes freely and never meets those of another model.
        """
        return self


P = TypeVar("P", bound=Part)


def ready(part: P, model: Model) -> P:
    """A copy of the part, bound to the model: what its user holds is never changed."""
    return copy.copy(part).bind(model)
