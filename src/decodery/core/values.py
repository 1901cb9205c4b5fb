"""The values that pass between parts.

Letters as in the papers: ``p`` is the target's law, ``q`` the draft's. ``m`` is the number of rows of a pass, ``V`` the
vocabulary, ``d`` the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

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


class Candidate(NamedTuple):
    """One finished answer of a search, best first; ``score`` in nats, normalised as the search says."""

    tokens: tuple[int, ...]
    score: float


class Budget(NamedTuple):
    """How much a drafter may guess: nodes in all, and levels below the root (what the caller can still use)."""

    nodes: int
    depth: int


@dataclass(frozen=True)
class Companion:
    """A declared second context: its own prompt tokens, followed by the same new tokens as the session."""

    prompt: tuple[int, ...]
