"""The bookkeeping of the paged cache: whatever is fed and released, each text reads exactly its own tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.core.tree import ROOT
from decodery.model.arena import Answer, Arena, Feed
from decodery.model.openvino.pages import BLOCK, Pages, Text, table


class Fake(Arena):
    """An arena whose cache holds, in each slot, the node that was computed there."""

    context = 1 << 20

    def __init__(self, padding: int = 0, window: int | None = None) -> None:
        super().__init__()
        self.pages, self.padding, self.window = Pages(self.nodes, window), padding, window
        self.cache = np.full(4 * BLOCK, -1)
        self.fails = False

    def _compute(self, feed: Feed) -> Answer:
        for rows in self.pages.stages(feed.handles):
            self._pass([feed.handles[row] for row in rows])
        return Answer(None)  # type: ignore[arg-type]

    def _pass(self, handles: list[int]) -> None:
        texts = self.pages.plan(handles)
        self.cache = np.pad(self.cache, (0, max(0, self.pages.used * BLOCK - len(self.cache))), constant_values=-1)
        targets, sources = list(self.pages.moves), list(self.pages.moves.values())
        self.cache[targets] = self.cache[sources]
        self.pages.moves.clear()
        if self.fails:
            raise KeyboardInterrupt
        every = [row for text in texts for row in text.rows]
        assert set(every) == set(range(len(handles)))
        assert self.window is not None or len(every) == len(handles)
        for text in texts:  # all write before one reads, as the texts of a pass may
            slots = self._slots(text)
            new = [handles[row] for row in text.rows]
            self.cache[slots[text.past :][: len(new)]] = new
            self.cache[slots[text.past + len(new) :][: self.padding]] = -2
        for text in texts:
            read = self.cache[self._slots(text)]
            for i, row in enumerate(text.rows):
                line = self.lineage(handles[row])
                fresh = read[text.past :][: len(text.rows)][text.sees[i]]
                assert [*read[: text.past], *fresh] == line, "a node reads others than its ancestors"
                if self.window is not None and len(line) > self.window:
                    assert text.past + i == len(line) - 1, "a window counts other slots than the node's ancestors"

    @staticmethod
    def _slots(text: Text) -> Any:
        return (np.array(text.table)[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)

    def _freed(self, handle: int, node: Any) -> None:
        self.pages.freed(handle)


def read_all(arena: Fake) -> None:
    """Each live node is in its slot, and an aligned one's table reads its lineage."""
    arena.check()
    arena.pages.check()
    for handle, (block, offset) in arena.pages._place.items():
        assert arena.cache[block.slot(offset)] == handle
        blocks = table(block)
        if (len(blocks) - 1) * BLOCK + offset == arena.nodes[handle].depth:
            slots = (np.array(blocks)[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
            line = arena.lineage(handle)
            assert list(arena.cache[slots[: len(line)]]) == line


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_program(data: Any) -> None:
    """Feeds of several trees under any live nodes, releases in any order, failing passes."""
    arena = Fake(data.draw(st.integers(0, 8)), data.draw(st.sampled_from([None, None, 1, 20])))
    owned: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["feed", "feed", "grow", "long", "release", "prune", "fail"]))
        if kind in ("release", "prune"):
            few = data.draw(st.integers(0, len(owned)))
            gone = data.draw(st.permutations(owned))[: len(owned) - few if kind == "prune" else few]
            arena.release(gone)
            owned = [handle for handle in owned if handle not in gone]
            continue
        n = data.draw(st.integers(30, 70) if kind == "long" else st.integers(1, 9))
        handles = arena.reserve(n)
        last = sorted(arena.nodes)[-9:]
        outside = [ROOT, *(last if kind == "grow" and last else arena.nodes)]
        parents: list[int] = []
        for i in range(n):
            inside = [*handles[max(0, i - 1) : i]] if kind == "long" else list(handles[:i])
            anywhere = not inside or (kind != "long" and data.draw(st.booleans()))
            parents.append(data.draw(st.sampled_from(outside if anywhere else inside)))
        arena.fails = kind == "fail"
        try:
            arena.extend(Feed(handles, [7] * n, parents, handles))
            owned += handles
        except KeyboardInterrupt:
            assert arena.fails
        read_all(arena)
    arena.release(owned)
    read_all(arena)
    assert not arena.nodes
    assert arena.pages.live == 0


def extend(arena: Fake, *parents: int) -> range:
    handles = arena.reserve(len(parents))
    arena.extend(Feed(handles, [7] * len(parents), [handles[0] + p if p >= 0 else p for p in parents], handles))
    return handles


def test_taking_a_branch_copies_it_alone() -> None:
    """A draft that is accepted beside the first branch moves; the first branch does not."""
    arena = Fake()
    arena.extend(Feed(text := arena.reserve(10), [7] * 10, [ROOT, *text[:-1]], text))
    first, second, third = tree = arena.reserve(3)
    arena.extend(Feed(tree, [7] * 3, [text[-1], text[-1], second], tree))
    arena.release([first])
    planned = arena.pages.plan([])
    assert planned == []
    assert arena.pages.moves == {}
    arena.pages._aligned(third)
    assert arena.pages.moves == {BLOCK + 10: BLOCK + 11, BLOCK + 11: BLOCK + 12}
    assert arena.pages.live == 1


def test_a_sibling_that_lives_is_left_in_its_place() -> None:
    arena = Fake()
    arena.extend(Feed(text := arena.reserve(10), [7] * 10, [ROOT, *text[:-1]], text))
    first, second = tree = arena.reserve(2)
    arena.extend(Feed(tree, [7] * 2, [text[-1]] * 2, tree))
    arena.extend(Feed(more := arena.reserve(2), [7] * 2, [first, second], more))
    read_all(arena)
    assert arena.pages.live == 2
    arena.release([second, more[1]])
    assert arena.pages.live == 1
    read_all(arena)


def test_blocks_are_used_again() -> None:
    arena = Fake()
    for _ in range(20):
        handles = extend(arena, ROOT, *range(99))
        arena.release(handles)
    assert arena.pages.used == 1 + 4
