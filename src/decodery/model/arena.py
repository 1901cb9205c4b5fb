"""The KV cache as a tree of nodes.

An arena knows two verbs: ``extend`` (one forward over new nodes, each seeing only its ancestors) and ``release`` (this
node is no longer needed; it goes when nothing hangs on it). Choosing a beam or resampling a particle is choosing a parent
and copies nothing. How rows are computed is the subclass's affair: ``slots.py`` keeps keys and values and masks them,
``snapshots.py`` keeps copies of the cache of models that cannot mask, ``toy.py`` looks them up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from decodery.core.errors import DecoderyError
from decodery.core.tree import ROOT
from decodery.core.values import LOGITS, Site, Tensor, Want
from decodery.model.variant import PLAIN, Variant

Handle = int


@dataclass(slots=True)
class Node:
    """A token in the cache. ``lane`` is the batch row of the cache it lives in, ``uses`` its children and owners."""

    token: int
    parent: Handle
    depth: int
    lane: int
    uses: int = 1


class Opener(Protocol):
    """What can open a cache: a model."""

    def arena(self, lanes: int = 1) -> Arena: ...


class Feed(NamedTuple):
    """New nodes for one forward. A parent is a live handle, ``ROOT``, or one of ``handles``, which come from ``reserve``."""

    handles: Sequence[Handle]
    tokens: Sequence[int]
    parents: Sequence[Handle]
    wanted: Collection[Handle]
    """The nodes whose rows should come back."""
    want: Want = LOGITS
    variant: Variant = PLAIN
    """How the network is run."""
    embeds: Tensor | None = None
    """``[n, d]``: input embeddings instead of tokens."""
    states: Tensor | None = None
    """``[n, d]``: what the first layer that runs receives; with a variant of later layers this resumes an early exit."""


@dataclass
class Answer:
    """Rows of the wanted nodes, in the order of ``handles``.

    ``logits``: ``[w, V]``. ``hidden``: place -> ``[w, d]``. ``every``: place -> ``[n, d]``, the states of all fed nodes,
    where ``want.trunk`` asks for them.
    """

    logits: Tensor
    hidden: dict[int | Site, Tensor] = field(default_factory=dict)
    every: dict[int | Site, Tensor] = field(default_factory=dict)


class Arena(ABC):
    """Nodes, their parents and their lifetimes; a node lives while it has an owner or a child."""

    context: int
    """How many tokens deep a node may be."""

    def __init__(self) -> None:
        self.nodes: dict[Handle, Node] = {}
        self.owner: object = None
        """The network whose cache this is."""
        self.states: dict[Handle, dict[int | Site, Tensor]] = {}
        """Hidden states ``[d]`` that were asked for with ``want.trunk``; they live as long as their node."""
        self._beside: dict[int, tuple[Opener, Arena]] = {}
        self._next = 0

    @abstractmethod
    def _compute(self, feed: Feed) -> Answer:
        """Rows of the wanted nodes; the new nodes are already in ``self.nodes``."""

    def prepare(self) -> None:
        """Do now what a backend does in the background after a while so that later passes are faster."""

    def _freed(self, handle: Handle, node: Node) -> None:
        """A node has gone."""

    def _new_lane(self) -> int:
        """The lane of a new root."""
        return 0

    def reserve(self, n: int) -> range:
        """Handles for ``n`` nodes to come."""
        self._next += n
        return range(self._next - n, self._next)

    def extend(self, feed: Feed) -> Answer:
        """One forward over new nodes, each seeing its ancestors only. The caller owns every new node."""
        for handle, token, parent in zip(feed.handles, feed.tokens, feed.parents, strict=True):
            if parent == ROOT:
                node = Node(token, ROOT, 0, self._new_lane())
            else:
                above = self.nodes[parent]
                above.uses += 1
                node = Node(token, parent, above.depth + 1, above.lane)
            self.nodes[handle] = node
        try:
            if any(self.nodes[h].depth >= self.context for h in feed.handles):
                raise DecoderyError(f"the text is longer than the model's context of {self.context} tokens")
            answer = self._compute(feed)
        except BaseException:  # an interrupt as well: the arena stays usable
            self.release(reversed(feed.handles))
            raise
        for site, states in answer.every.items():
            for handle, state in zip(feed.handles, states, strict=True):
                self.states.setdefault(handle, {})[site] = state
        return answer

    def beside(self, model: Opener) -> Arena:
        """The cache of another model for sessions beside those of this arena: one for all, so that they share passes."""
        if id(model) not in self._beside:
            self._beside[id(model)] = model, model.arena(self.lanes)
        return self._beside[id(model)][1]

    @property
    def lanes(self) -> int:
        """How many rows the cache has."""
        return 1

    def own(self, handle: Handle) -> None:
        """Keep this node (and so its ancestors) until it is released once more."""
        if handle != ROOT:
            self.nodes[handle].uses += 1

    def release(self, handles: Iterable[Handle]) -> None:
        """Give nodes up; each goes once neither an owner nor a child is left."""
        for handle in handles:
            while handle != ROOT:
                node = self.nodes[handle]
                node.uses -= 1
                if node.uses:
                    break
                del self.nodes[handle]
                self.states.pop(handle, None)
                self._freed(handle, node)
                handle = node.parent

    def lineage(self, handle: Handle) -> list[Handle]:
        """The nodes from the root down to ``handle``."""
        path = []
        while handle != ROOT:
            path.append(handle)
            handle = self.nodes[handle].parent
        return path[::-1]

    def words(self, handle: Handle) -> list[int]:
        """The tokens from the root down to ``handle``."""
        return [self.nodes[h].token for h in self.lineage(handle)]

    def check(self) -> None:
        """Raise ``AssertionError`` unless every node has its parent and is used as often as it says at least.

        For tests, and for servers that have nothing else to do.
        """
        children = Counter(node.parent for node in self.nodes.values())
        for handle, node in self.nodes.items():
            assert node.parent == ROOT or node.parent in self.nodes, f"node {handle} lives without its parent"
            assert node.uses >= max(children[handle], 1), f"node {handle} has {node.uses} uses for its children"
        assert self.states.keys() <= self.nodes.keys(), "states outlived their nodes"
