"""The arena over a key-value cache: nodes live in slots, a mask shows each node its ancestors.

Mask and positions are always computed from the nodes, never from an order of slots, so a freed slot is simply used
again and accepting a draft copies nothing. A lane is a batch row of the cache. One lane holds any number of roots (each
query then looks past the other roots' slots, masked); a lane a root suits many long unrelated texts.
"""

from __future__ import annotations

import heapq
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from decodery.core.tree import ROOT
from decodery.core.values import Site, Tensor, Want
from decodery.model.arena import Answer, Arena, Feed, Handle, Node
from decodery.model.facts import Reach
from decodery.model.variant import PLAIN, Variant

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SLACK = 256
DEAD = 96
"""Dead slots cost attention in every step, rewriting the state costs once: about 0.02 ms a slot and step against 30 ms
(SmolLM2, 512 tokens), so the least is spent around a hundred."""

REMEMBERED = 256
"""How many nodes' visibility is remembered; the rest is walked again when needed."""


@dataclass(frozen=True)
class Batch:
    """One raw forward: ``b`` lanes of ``n`` queries over ``t`` slots."""

    lanes: list[int]
    ids: Ints
    """``[b, n]``"""
    positions: Ints
    """``[b, n]``: depth in the tree."""
    slots: Ints
    """``[b, n]``: where the keys and values go; distinct within a lane."""
    visible: dict[str, Bools]
    """Kind of attention -> ``[b, n, t]``."""
    columns: list[int]
    """Queries whose rows are wanted, in every lane."""
    want: Want
    variant: Variant = PLAIN
    embeds: Tensor | None = None
    """``[b, n, d]``"""
    states: Tensor | None = None
    """``[b, n, d]``: what the first layer that runs receives."""


class Backend(Protocol):
    """A raw forward over slots. ``windows``: kind of attention -> how far back it sees."""

    context: int
    windows: dict[str, Reach]
    appends: bool
    """Slots can only be appended: a freed one stays dead, behind the mask, until the lane is compacted."""

    def open(self, lanes: int) -> Any:
        """An empty store of keys and values."""

    def reserve(self, store: Any, slots: int) -> int:
        """Make room for at least ``slots`` slots a lane; returns how many there are."""

    def move(self, store: Any, lane: int, source: list[int], target: list[int], keep: int) -> None:
        """Copy slots within a lane (sources are read before targets are written); only the first ``keep`` matter now."""

    def close(self, store: Any) -> None:
        """The store is no longer needed."""

    def forward(self, store: Any, batch: Batch) -> tuple[Tensor, dict[int | Site, Tensor]]:
        """``logits [b, columns, V]``, and the wanted states: place -> ``[b, n, d]``."""


class SlotArena(Arena):
    """Nodes in slots of ``lanes`` lanes; with several, slot 0 of each takes the padding and is never seen.

    ``padded``: keep that slot for a single lane as well, for a backend that pads on its own.
    """

    def __init__(self, backend: Backend, lanes: int = 1, padded: bool = False) -> None:
        super().__init__()
        self.backend, self.context = backend, backend.context
        if backend.appends:
            lanes = 1
        self._store = backend.open(lanes)
        weakref.finalize(self, backend.close, self._store)
        self._room = 0
        self._slot: dict[Handle, int] = {}
        self._free: list[list[int]] = [[] for _ in range(lanes)]
        self._padded = int(lanes > 1 or padded)
        self._used = [self._padded] * lanes
        self._seen: dict[Handle, Bools] = {}
        self._position = np.zeros((lanes, 0), np.int64)

    @property
    def lanes(self) -> int:
        return len(self._used)

    def _new_lane(self) -> int:
        load = Counter(node.lane for node in self.nodes.values())
        return min(range(len(self._used)), key=lambda lane: load[lane])

    def _freed(self, handle: Handle, node: Node) -> None:
        if (slot := self._slot.pop(handle, None)) is not None:
            heapq.heappush(self._free[node.lane], slot)
        self._seen.pop(handle, None)

    def _compute(self, feed: Feed) -> Answer:
        self.compact()
        for handle in feed.handles:
            self._slot[handle] = self._take(self.nodes[handle].lane)
        if (needed := max(self._used)) > self._room:
            self._room = self.backend.reserve(self._store, needed)
            self._position = np.pad(self._position, ((0, 0), (0, self._room - self._position.shape[1])))
        queries: dict[int, list[int]] = {}
        for i, handle in enumerate(feed.handles):
            queries.setdefault(self.nodes[handle].lane, []).append(i)
        batch, place = self._batch(feed, queries)
        logits, hidden = self.backend.forward(self._store, batch)
        rows = [place[i] for i, handle in enumerate(feed.handles) if handle in feed.wanted]
        lane, column = [b for b, _ in rows], [n for _, n in rows]
        if batch.ids.shape[0] > 1 or len(rows) < logits.shape[1]:
            logits = logits[lane, [batch.columns.index(n) for n in column]]
        else:
            logits = logits[0]
        answer = Answer(logits, {site: states[lane, column] for site, states in hidden.items()})
        if feed.want.trunk:
            lane, column = ([place[i][axis] for i in range(len(feed.handles))] for axis in (0, 1))
            answer.every = {site: states[lane, column] for site, states in hidden.items()}
        return answer

    def _batch(self, feed: Feed, queries: dict[int, list[int]]) -> tuple[Batch, dict[int, tuple[int, int]]]:
        """The forward of a feed, shorter lanes padded on the left, and where each of its nodes went in it."""
        lanes = sorted(queries)
        t = max(self._used[lane] for lane in lanes)
        b, n = len(lanes), max(map(len, queries.values()))
        ids, positions, slots = (np.zeros((b, n), np.int64) for _ in range(3))
        visible = np.zeros((b, n, t), np.bool_)
        if self._padded:
            visible[:, :, 0] = [[column < n - len(queries[lane]) for column in range(n)] for lane in lanes]
        place: dict[int, tuple[int, int]] = {}
        fresh: dict[Handle, Bools] = {}
        for row, lane in enumerate(lanes):
            for column, i in enumerate(queries[lane], n - len(queries[lane])):
                handle, node = feed.handles[i], self.nodes[feed.handles[i]]
                place[i] = row, column
                ids[row, column], positions[row, column] = feed.tokens[i], node.depth
                slots[row, column] = slot = self._slot[handle]
                above = fresh[node.parent] if node.parent in fresh else self._sight(node.parent, t)
                visible[row, column] |= above
                visible[row, column, slot] = True
                self._position[lane, slot] = node.depth
                fresh[handle] = visible[row, column]
        self._remember(fresh)
        columns = sorted({place[i][1] for i, handle in enumerate(feed.handles) if handle in feed.wanted})
        kinds = {kind: self._within(visible, positions, lanes, w) for kind, w in self.backend.windows.items()}
        spread = {name: _spread(x, place, b, n) for name, x in (("embeds", feed.embeds), ("states", feed.states))}
        return Batch(lanes, ids, positions, slots, kinds, columns, feed.want, feed.variant, **spread), place

    def _within(self, visible: Bools, positions: Ints, lanes: list[int], reach: Reach) -> Bools:
        if reach.size is None:
            return visible
        queries, keys = positions[:, :, None], self._position[lanes, None, : visible.shape[2]]
        inside = keys // reach.size == queries // reach.size if reach.chunked else queries - keys < reach.size
        near = visible & inside
        if self._padded:
            near[:, :, 0] = visible[:, :, 0]
        return near

    def _take(self, lane: int) -> int:
        if self._free[lane] and not self.backend.appends:
            return heapq.heappop(self._free[lane])
        self._used[lane] += 1
        return self._used[lane] - 1

    def _sight(self, handle: Handle, t: int) -> Bools:
        """Which slots a child of this node sees: the node's own and its ancestors'."""
        seen = np.zeros(t, np.bool_)
        while handle != ROOT:
            if (known := self._seen.get(handle)) is not None:
                seen[: len(known)] |= known[:t]
                break
            seen[self._slot[handle]] = True
            handle = self.nodes[handle].parent
        return seen

    def _remember(self, fresh: dict[Handle, Bools]) -> None:
        for handle in list(fresh)[-REMEMBERED // 2 :]:
            self._seen[handle] = fresh[handle].copy()
        for handle in list(self._seen)[:-REMEMBERED]:
            del self._seen[handle]

    def compact(self, slack: int | None = None) -> None:
        """Gather the live slots of a lane at its front, once more than ``slack`` are free.

        By default that is half of the lane, and at least ``SLACK``; ``DEAD`` where freed slots cannot be used again.
        """
        for lane, free in enumerate(self._free):
            usual = DEAD if self.backend.appends else max(SLACK, self._used[lane] // 2)
            if len(free) <= (usual if slack is None else slack):
                continue
            live = [h for h, node in self.nodes.items() if node.lane == lane and h in self._slot]
            end = self._padded + len(live)
            movers = sorted((h for h in live if self._slot[h] >= end), key=lambda h: self._slot[h])
            holes = sorted(slot for slot in free if slot < end)
            source = [self._slot[h] for h in movers]
            self.backend.move(self._store, lane, source, holes, end)
            self._position[lane, holes] = self._position[lane, source]
            self._slot |= dict(zip(movers, holes, strict=True))
            self._free[lane], self._used[lane] = [], end
            self._seen = {}


def _spread(flat: Tensor | None, place: dict[int, tuple[int, int]], b: int, n: int) -> Tensor | None:
    """``[nodes, d]`` -> ``[b, n, d]``, zeros where a lane is padded."""
    if flat is None:
        return None
    out = flat.new_zeros(b, n, flat.shape[-1])
    for i, (row, column) in place.items():
        out[row, column] = flat[i]
    return out
