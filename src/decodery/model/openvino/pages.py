"""Where the nodes of a paged cache are: blocks of slots, the texts that run through them, and what a pass must copy.

The paged attention of OpenVINO reads a text as a list of blocks of 32 slots, and its new tokens go to the slots behind
those it has read. Slots are counted along the list, so a text is right when each node's slot is its depth: the node is
then *aligned*. The new nodes of a tree lie one behind another, so those beside its first branch are not aligned. They are
copied to their place when something is hung on them, and never otherwise.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decodery.core.tree import ROOT
from decodery.model.arena import Handle, Node
from decodery.model.openvino.attention import BLOCK

SPARE = 0
"""The block that takes what a pass computes beyond its nodes; nothing is ever read from it."""

LONG = 8
"""A trunk longer than this is not computed again for each of its branches."""

Bools = npt.NDArray[np.bool_]


@dataclass(eq=False, slots=True)
class Block:
    """A block of the cache and what keeps it alive: the nodes that live in it and the blocks that follow it.

    Slots without a node may hold copies: a block that was copied for one text holds that text's earlier nodes, which
    live elsewhere.
    """

    index: int
    """Its place in the cache tensors."""
    prev: Block | None
    """The block before it in its texts."""
    number: int
    """How many blocks are before it in its texts."""
    nodes: dict[int, Handle] = field(default_factory=dict)
    """Offset -> the node that lives there."""
    followers: int = 0

    def slot(self, offset: int) -> int:
        """The place of a node in the cache tensors."""
        return self.index * BLOCK + offset


class Text(NamedTuple):
    """A text in a pass: ``past`` tokens that all its new nodes see, and the new nodes behind them."""

    rows: list[int]
    """Which nodes of the feed these are, in the order of their slots."""
    past: int
    table: list[int]
    """The blocks of the text, the new nodes' included."""
    sees: Bools
    """``[n, n]``: each new node (row) sees itself and the new nodes above it."""


class Pages:
    """The blocks of one cache, and the place of each of its nodes."""

    def __init__(self, nodes: Mapping[Handle, Node], window: int | None = None) -> None:
        self._nodes, self._window = nodes, window
        self._place: dict[Handle, tuple[Block, int]] = {}
        self._free: list[int] = []
        self.used = SPARE + 1
        """How many blocks the cache tensors must have."""
        self.moves: dict[int, int] = {}
        """Slot -> the slot whose keys and values it must hold before the next pass; all are read before one is written."""

    @property
    def live(self) -> int:
        """How many blocks are in use."""
        return self.used - SPARE - 1 - len(self._free)

    def freed(self, handle: Handle) -> None:
        """A node has gone; it may never have had a place."""
        if (place := self._place.pop(handle, None)) is not None:
            self._vacate(handle, *place)

    def stages(self, handles: Sequence[Handle]) -> list[list[int]]:
        """The nodes of a feed, pass after pass. It is one pass, unless a long trunk would be computed for each branch."""
        trunks: set[int] = set()
        for (anchor, _), rows in self._texts(handles).items() if self._window else ():
            chain = _chain(self._above([handles[row] for row in rows]))
            if LONG < chain < len(rows) and self._splits(anchor, len(rows)):
                trunks.update(rows[:chain])
        rest = [row for row in range(len(handles)) if row not in trunks]
        return [sorted(trunks), rest] if trunks else [rest]

    def plan(self, handles: Sequence[Handle]) -> list[Text]:
        """Give new nodes their places and say which texts a pass over them reads. ``moves`` must be done before it.

        New nodes that hang on one node of earlier passes are one text, and so are a root and those below it. Where a
        window counts slots, each of their branches is a text, so that every node's slot is its depth.
        """
        texts = self._texts(handles)
        ends = [self._aligned(anchor) for anchor, _ in texts]  # of all before new nodes are laid: who leaves makes room
        planned = []
        for (anchor, _), rows, end in zip(texts, texts.values(), ends, strict=True):
            past = self._depth(anchor) + 1
            for path, known in self._branches(rows, handles) if self._splits(anchor, len(rows)) else [(rows, 0)]:
                new = [handles[row] for row in path]
                planned.append(Text(path, past, table(self._lay(end, past, new, known)), _sees(self._above(new))))
        return planned

    def _texts(self, handles: Sequence[Handle]) -> dict[tuple[Handle, int], list[int]]:
        """The node that new nodes hang on (and which root, where there is none) -> their places in the feed."""
        texts: dict[tuple[Handle, int], list[int]] = {}
        text_of: dict[Handle, tuple[Handle, int]] = {}
        for row, handle in enumerate(handles):
            parent = self._nodes[handle].parent
            key = text_of.get(parent) or (parent, row if parent == ROOT else 0)
            text_of[handle] = key
            texts.setdefault(key, []).append(row)
        return texts

    def _depth(self, handle: Handle) -> int:
        return -1 if handle == ROOT else self._nodes[handle].depth

    def _splits(self, anchor: Handle, n: int) -> bool:
        """Whether ``n`` new nodes reach beyond a window, so that their slots must be their depths."""
        return self._window is not None and self._depth(anchor) + 1 + n > self._window

    def _branches(self, rows: Sequence[int], handles: Sequence[Handle]) -> Iterator[tuple[list[int], int]]:
        """Each way from the top of a text's new nodes down to a leaf, and how much of it an earlier one has begun with."""
        paths: dict[Handle, list[int]] = {}
        for row in rows:
            paths[handles[row]] = [*paths.get(self._nodes[handles[row]].parent, []), row]
        inner = {self._nodes[handle].parent for handle in paths}
        seen: set[int] = set()
        for handle, path in paths.items():
            if handle not in inner:
                yield path, sum(row in seen for row in path)
                seen.update(path)

    def _aligned(self, handle: Handle) -> Block | None:
        """The block of a node whose lineage is aligned; it is made so now if need be."""
        behind: list[Handle] = []
        while handle != ROOT:
            block, offset = self._place[handle]
            if block.number * BLOCK + offset == self._nodes[handle].depth:
                break
            behind.append(handle)
            handle = self._nodes[handle].parent
        start = None if handle == ROOT else self._place[handle][0]
        return self._lay(start, self._nodes[behind[-1]].depth, behind[::-1]) if behind else start

    def _lay(self, block: Block | None, start: int, handles: Sequence[Handle], known: int = 0) -> Block | None:
        """Put nodes in the slots from ``start`` of the text that ends in ``block``; returns the block of the last one.

        Nothing may lie at or behind these slots but the nodes themselves: else the text goes on in a copy of the block.
        The first ``known`` nodes live elsewhere: their slots are for copies of them, which the pass computes again.
        """
        moving = set(handles[known:])
        for slot, handle in enumerate(handles, start):
            offset = slot % BLOCK
            if offset == 0:
                block = self._new(block)
            assert block is not None, "only a root can be the first node of a text"
            if slot == start and any(o >= offset and h not in moving for o, h in block.nodes.items()):
                block = self._copied(block, offset)
            if slot < start + known:
                continue
            # The block has the node before it is said to be there, so an interrupt in between loses nothing.
            block.nodes[offset] = handle
            if (old := self._place.get(handle)) is not None and old != (block, offset):
                self._move(old[0].slot(old[1]), block.slot(offset))
            self._place[handle] = block, offset
            if old is not None and old != (block, offset):
                self._vacate(handle, *old)
        return block

    def _move(self, source: int, target: int) -> None:
        self.moves[target] = self.moves.get(source, source)  # what moves before this in the same plan is not there yet

    def _new(self, prev: Block | None) -> Block:
        index = heapq.heappop(self._free) if self._free else self.used
        self.used = max(self.used, index + 1)
        if prev is not None:
            prev.followers += 1
        return Block(index, prev, 0 if prev is None else prev.number + 1)

    def _copied(self, block: Block, offset: int) -> Block:
        """A second block after the one before, with copies of the slots below ``offset``."""
        copy = self._new(block.prev)
        for earlier in range(offset):
            self._move(block.slot(earlier), copy.slot(earlier))
        return copy

    def _vacate(self, handle: Handle, block: Block | None, offset: int) -> None:
        """A node has left its place; blocks that nobody needs any more are free."""
        if block is not None and block.nodes.get(offset) == handle:
            del block.nodes[offset]
        while block is not None and not block.nodes and not block.followers:
            heapq.heappush(self._free, block.index)
            block = block.prev
            if block:
                block.followers -= 1

    def _above(self, new: Sequence[Handle]) -> list[int]:
        """Where among these nodes the parent of each is; -1 where it is none of them."""
        row = {handle: i for i, handle in enumerate(new)}
        return [row.get(self._nodes[handle].parent, -1) for handle in new]

    def check(self) -> None:
        """Raise ``AssertionError`` unless every node has a place of its own and every block is needed. For tests."""
        assert self._place.keys() == self._nodes.keys(), "a node has no place, or a place has no node"
        blocks = {id(b): b for block, _ in self._place.values() for b in _back(block)}
        for handle, (block, offset) in self._place.items():
            assert block.nodes[offset] == handle, f"node {handle} shares its slot"
        assert sum(len(block.nodes) for block in blocks.values()) == len(self._place), "a slot is taken by nobody"
        assert self.live == len(blocks), "a block is lost"
        assert len({block.index for block in blocks.values()} | {SPARE, *self._free}) == self.used, "a block is twice"


def table(block: Block | None) -> list[int]:
    """The blocks of the text that ends in this block, from its first."""
    return [b.index for b in _back(block)][::-1]


def _chain(above: Sequence[int]) -> int:
    """How many nodes hang one on another before the first that does not."""
    return next((i for i, parent in enumerate(above) if parent != i - 1), len(above))


def _sees(above: Sequence[int]) -> Bools:
    chain, sees = _chain(above), np.eye(len(above), dtype=np.bool_)
    sees[:chain, :chain] = np.tri(chain, dtype=np.bool_)
    for i, parent in islice(enumerate(above), chain, None):
        if parent >= 0:
            sees[i] |= sees[parent]
    return sees


def _back(block: Block | None) -> Iterator[Block]:
    while block is not None:
        yield block
        block = block.prev
