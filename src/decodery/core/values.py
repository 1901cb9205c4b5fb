"""The values that pass between parts.

Letters as in the papers: ``p`` is the target's law, ``q`` the draft's. ``m`` is the number of rows of a pass, ``V`` the
vocabulary, ``d`` the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Tensor = torch.Tensor


Array = npt.NDArray[np.generic]


NO_TOKEN = 0xFFFFFFFF
"""Fills up rows of token ids in a drafter's saved memory."""


SURE = "sure"
"""The kind of a draft node that a constraint leaves no choice about, so that it will be accepted if its parent is."""


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


class Site(Enum):
    """A place in the network whose states can be asked for, beside the outputs of its layers."""

    FINAL = "after the last norm"


@dataclass(frozen=True)
class Want:
    """What a pass should return besides logits.

    Attributes:
        hidden: the places whose states are wanted: ``i`` is the output of layer i (0-based), ``Site.FINAL`` the state
            after the last norm.
        trunk: the states of all committed tokens are kept as well, the prompt's included; ``Session.states`` reads them.
    """

    hidden: frozenset[int | Site] = frozenset()
    trunk: bool = False

    def __or__(self, other: Want) -> Want:
        return Want(self.hidden | other.hidden, self.trunk or other.trunk)


LOGITS = Want()


class Cost(NamedTuple):
    """What a pass cost its session.

    ``seconds``: the session's share of the pass by positions; ``passes`` and ``positions`` of the network, ``companions``
    the passes of companion sessions, which are not in the other two.
    """

    seconds: float = 0.0
    passes: int = 0
    positions: int = 0
    companions: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            self.seconds + other.seconds,
            self.passes + other.passes,
            self.positions + other.positions,
            self.companions + other.companions,
        )


FREE = Cost()


@dataclass
class Rows:
    """What a pass returns: row 0 after the last committed token, then one row for each forwarded node.

    A pass that only adds nodes to a tree (``Ask.fresh``) has no row after the last committed token.

    Attributes:
        logits: ``[m, V]``, as the model gave them.
        context: all committed tokens, the prompt's included; read-only for guides.
        paths: for each row the tokens between the context and the row.
        index: node of the tree -> its row, or None where this pass has none (a ghost, or a node of an earlier pass).
        prompt: how many tokens of the context are the prompt.
        hidden: place -> ``[m, d]``.
        companions: the rows of the declared companion sessions, aligned with these.
        kept: the nodes of the tree asked for that were forwarded, in order; None: all of them. A planner may leave some out.
        cost: what the pass cost.
    """

    logits: Tensor
    context: Sequence[int]
    paths: Sequence[tuple[int, ...]] = ((),)
    index: Sequence[int | None] = ()
    prompt: int = 0
    hidden: dict[int | Site, Tensor] = field(default_factory=dict)
    companions: dict[Any, Rows] = field(default_factory=dict)
    kept: Sequence[int] | None = None
    cost: Cost = FREE

    def __len__(self) -> int:
        return self.logits.shape[0]

    def words(self, row: int) -> list[int]:
        """All tokens up to and including the node of this row."""
        return [*self.context, *self.paths[row]]

    def at(self, node: int) -> int | None:
        """The row after a node of the tree (``ROOT``: after the last committed token); None where there is none."""
        if node < 0:
            return None if self.paths[0] else 0
        return self.index[node]


class Candidate(NamedTuple):
    """One finished answer of a search, best first; ``score`` in nats, normalised as the search says."""

    tokens: tuple[int, ...]
    score: float


class Budget(NamedTuple):
    """How much a drafter may guess: nodes in all, and levels below the root (what the caller can still use)."""

    nodes: int
    depth: int


class Offer(NamedTuple):
    """What a planner must know of a tree that it may cut.

    ``promise``: each node's chance to be accepted, none above its parent's, nor above that of a sibling drawn before it;
    None where the tree must be forwarded whole. ``seconds``: what proposing it took.
    """

    promise: Sequence[float] | None
    seconds: float


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:
        return shorter
    return next(i for i in range(shorter) if a[i] != b[i])
