"""The roles a part may have. Every part is a dataclass whose fields are its parameters."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch

from decodery.core.chooser import Chooser
from decodery.core.law import Law, forbid
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import LOGITS, Array, Budget, Cap, Companion, Rows, Scheme, Tensor, Want
from decodery.model.session import Ask, Session


class Model(Protocol):
    """What a part may ask of the loaded model when it is bound to it."""

    @property
    def eos(self) -> frozenset[int]: ...

    @property
    def vocab(self) -> int: ...

    @property
    def can(self) -> frozenset[Cap]: ...

    def session(self, tokens: Sequence[int] = ()) -> Session: ...

    def encode(self, text: str) -> list[int]: ...

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
class Part:
    """Anything a user may name: a dataclass whose fields are its parameters.

    Class attributes say what it is: ``paper`` where it comes from, ``lossless`` whether the output keeps the target's law,
    ``needs`` what the model must be able to do, ``want`` what each pass must return.
    """

    paper: ClassVar[str] = ""
    lossless: ClassVar[bool] = True
    specimens: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Parameters under which the law suite examines the part on a toy model of the tokens a, b and c."""
    needs: ClassVar[frozenset[Cap]] = frozenset()
    want: ClassVar[Want] = LOGITS

    def bind(self, model: Model) -> Self:
        """This part made ready for a model (token ids looked up, models loaded); called once, before the first step."""
        return self


@dataclass
class Guide(Part):
    """Reshapes logits, all rows of a pass at once; may work in place.

    ``samples``: naming this guide asks for a drawn token rather than the likeliest one.
    """

    samples: ClassVar[bool] = False

    def companions(self) -> dict[str, Companion]:
        """Other contexts to advance in lock-step with the session; their rows arrive in ``rows.companions``."""
        return {}

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Laws:
    """The guides of a request, applied to any rows: the target's, or a draft model's so that both speak of one law."""

    guides: tuple[Guide, ...] = ()
    greedy: bool = True

    def alone(self) -> Laws:
        """Without the guides that need companions: for a draft model, whose rows come without them."""
        return Laws(tuple(guide for guide in self.guides if not guide.companions()), self.greedy)

    def __call__(self, rows: Rows, masks: Sequence[Tensor | None] = ()) -> Law:
        """The law of every row; ``masks`` holds a bool ``[V]`` a row, or None where all is allowed."""
        logits = rows.logits.to(torch.promote_types(rows.logits.dtype, torch.float32))
        if self.guides or any(mask is not None for mask in masks):
            logits = logits.clone()
        # Before the guides, so that "the 5 likeliest" means of those allowed; after them, so that the constraint holds
        # whatever they did.
        forbid(logits, masks)
        for guide in self.guides:
            logits = guide(logits, rows)
        if self.guides:
            forbid(logits, masks)
        return Law(logits, self.greedy)


Program = Generator["Ask | Step", "Rows", None]
"""A decoding program: yields an ``Ask`` to get ``Rows`` back, and a ``Step`` for each turn."""


@dataclass
class Drafter(Part):
    """Guesses the next tokens.

    State inside a request is made in ``begin``; what should outlive a request is made in ``__post_init__``, and is shared
    by the rows of a batch. ``emits`` says how siblings are drawn; a drafter that draws chains only emits no scheme but
    CERTAIN or IID.
    """

    emits: ClassVar[frozenset[Scheme]] = frozenset({Scheme.CERTAIN})
    accepts: ClassVar[frozenset[Scheme]] = frozenset(Scheme)
    """Of a drafter made of others: the schemes it is exact for where tokens are sampled."""

    def inner(self) -> tuple[Drafter, ...]:
        """The drafters that this one is made of; the builder checks them as it checks this one."""
        return ()

    def begin(self, session: Session, laws: Laws) -> None:
        """A new request. ``laws`` turns a draft model's rows into the law it should draw from."""

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        """Guess; an empty tree is a legal guess."""
        raise NotImplementedError

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        """Learn from the whole pass, refused rows included; the session has already committed."""

    def memory(self) -> dict[str, Array]:
        """What outlives a request, as arrays for a file (``memory.py``): float64, or uint32 for token ids, ``NO_TOKEN`` where
        a row has fewer. A drafter that keeps anything names its arrays even while they are empty."""
        return {}

    def remember(self, memory: Mapping[str, Array]) -> None:
        """Take up what ``memory`` gave, under whatever parameters it was learnt; ``ValueError`` where it is not of that form."""


@dataclass
class Verifier(Part):
    """Decides which nodes stand. ``accepts``: the schemes it is exact for; ``greedy_only``: only for one-hot laws."""

    accepts: ClassVar[frozenset[Scheme]] = frozenset(Scheme)
    greedy_only: ClassVar[bool] = False

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        raise NotImplementedError


@dataclass
class Constraint(Part):
    """What may follow. States are values, so a tree of drafts is a tree of states. None as a state means forbidden.

    ``literal``: the text of an answer is that of its tokens as the constraint reads them, a first space included, which
    some tokenizers take off at the beginning of a text.
    """

    literal: ClassVar[bool] = False

    def start(self, prompt: Sequence[int]) -> Any:
        """The state before the first new token."""
        return ()

    def advance(self, state: Any, token: int) -> Any | None:
        """The state after ``token``, or None where it is forbidden."""
        raise NotImplementedError

    def mask(self, state: Any) -> Tensor | None:
        """Bool ``[V]`` of the allowed tokens, end-of-sequence left out; None allows all."""
        raise NotImplementedError

    def may_end(self, state: Any) -> bool:
        """Whether the answer may stop here."""
        return True


@dataclass
class Search(Part):
    """Many candidates, one commit at the end. A program like the loop, run on the session's arena."""

    def __call__(self, session: Session, laws: Laws, constrain: Constraint, rng: Chooser, stop: Stop) -> Program:
        raise NotImplementedError
