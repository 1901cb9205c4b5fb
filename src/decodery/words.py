"""The words of Decodery: every role and every value that passes between parts.

Letters as in the papers: ``p`` is the target's law, ``q`` the draft's. ``m`` is the number of rows of a pass, ``V`` the
vocabulary, ``d`` the hidden size.

    arena     nodes of the KV cache: a token and a parent each (``model/arena.py``)
    session   a committed trunk over an arena (``model/session.py``)
    pending   committed tokens that the cache has not seen yet
    tree      what a drafter guesses (``tree.py``)
    ghost     a guessed node that is not forwarded but still refused by the verifier, which keeps the output exact
    row       the model's answer after one node; row 0 is the answer after the last committed token
    law       the distribution a token is drawn from: guided, masked, normalised (``law.py``)
    verdict   which nodes were accepted and which extra tokens follow
    step      one turn of the loop
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from decodery.law import Law, Laws
    from decodery.model.session import Ask, Session
    from decodery.stop import Stop
    from decodery.tree import TokenTree

Tensor = torch.Tensor
Array = npt.NDArray[np.generic]

NO_TOKEN = 0xFFFFFFFF
"""Fills up rows of token ids in a drafter's saved memory."""


class Scheme(Enum):
    """How the children of one node were chosen."""

    CERTAIN = "certain"
    """No randomness: q is one-hot. Such nodes may be deleted freely."""
    IID = "iid"
    """Independent draws from one q; repeats happen."""
    DISTINCT = "distinct"
    """Draws without replacement; each node's q has its earlier siblings removed."""


class Cap(Enum):
    """What a loaded model can do; found by experiment (``model/probe.py``)."""

    TREE = "tree"
    HIDDEN = "hidden states"
    LAYERS = "layer subsets"
    HALVES = "halves of layers"
    EMBEDS = "free embeddings"


@dataclass(frozen=True)
class Want:
    """What a pass should return besides logits.

    ``hidden``: layers whose output states are wanted; ``i`` is the output of layer i (0-based), ``FINAL`` the state after
    the last norm.
    """

    FINAL: ClassVar[int] = 10**6
    hidden: frozenset[int] = frozenset()

    def __or__(self, other: Want) -> Want:
        return Want(self.hidden | other.hidden)


LOGITS = Want()


class Half(NamedTuple):
    """An entry of a layer set: of this layer only the attention runs (``attends``), or only the MLP."""

    layer: int
    attends: bool


class Shared(NamedTuple):
    """An entry of a layer set: consecutive layers whose attentions all read what the first of them receives.

    Their MLPs run one after another. A set that holds such an entry or a ``Half`` needs ``Cap.HALVES``.
    """

    layers: tuple[int, ...]


LayerSet = frozenset[int | Half | Shared]
"""Which layers run, at most one entry for each; an integer is a whole layer (0-based), a layer not mentioned passes its
input on."""


@dataclass
class Rows:
    """What a pass returns: row 0 after the last committed token, then one row for each forwarded node.

    Attributes:
        logits: ``[m, V]``, as the model gave them.
        context: all committed tokens, the prompt's included; read-only for guides.
        paths: for each row the tokens between the context and the row.
        index: node of the tree -> its row, or None for a ghost.
        prompt: how many tokens of the context are the prompt.
        hidden: layer -> ``[m, d]``.
        companions: the rows of the declared companion sessions, aligned with these.
    """

    logits: Tensor
    context: Sequence[int]
    paths: Sequence[tuple[int, ...]] = ((),)
    index: Sequence[int | None] = ()
    prompt: int = 0
    hidden: dict[int, Tensor] = field(default_factory=dict)
    companions: dict[str, Rows] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.logits.shape[0]

    def words(self, row: int) -> list[int]:
        """All tokens up to and including the node of this row."""
        return [*self.context, *self.paths[row]]

    def at(self, node: int) -> int | None:
        """The row after a node of the tree (``ROOT`` gives row 0); None for a ghost, which has no row."""
        return 0 if node < 0 else self.index[node]


class Verdict(NamedTuple):
    """Accepted nodes, root to leaf, and the tokens that follow them; both may be empty."""

    path: tuple[int, ...]
    extra: tuple[int, ...] = ()

    def tokens(self, tree: TokenTree) -> list[int]:
        return [tree.tokens[i] for i in self.path] + list(self.extra)


class Candidate(NamedTuple):
    """One finished answer of a search, best first; ``score`` in nats, normalised as the search says."""

    tokens: tuple[int, ...]
    score: float


@dataclass
class Step:
    """What one turn of a program did; every figure Decodery prints is folded from these.

    ``tokens`` are the ones committed by this step; ``seconds`` maps a phase to its time; ``candidates`` is filled by the
    last step of a search.
    """

    tree: TokenTree
    rows: Rows
    p: Law
    verdict: Verdict
    tokens: list[int]
    seconds: dict[str, float] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)


class Budget(NamedTuple):
    """How much a drafter may guess: nodes in all, and levels below the root (what the caller can still use)."""

    nodes: int
    depth: int


Program = Generator["Ask | Step", "Rows", None]
"""A decoding program: yields an ``Ask`` to get ``Rows`` back, and a ``Step`` for each turn."""


class Chooser(Protocol):
    """Where all randomness comes from (``chooser.py``)."""

    def pick(self, p: Tensor) -> int:
        """An index of ``p`` (``[V]``, non-negative, need not sum to one), never one of probability zero."""

    def flip(self, a: float) -> bool:
        """True with probability ``min(a, 1)``."""

    def noise(self) -> float:
        """A number in (0, 1). It may shape a tree, never choose a token: a law must be exact whatever it is."""

    def fork(self) -> Chooser:
        """A chooser of its own for what runs beside this one, in a thread perhaps: neither takes from the other, so the
        choices of both are the same whoever is first."""


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
class Companion:
    """A declared second context: its own prompt tokens, followed by the same new tokens as the session."""

    prompt: tuple[int, ...]


State = Hashable


@dataclass
class Constraint(Part):
    """What may follow. States are values, so a tree of drafts is a tree of states. None as a state means forbidden."""

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
