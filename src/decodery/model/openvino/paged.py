"""The arena over paged attention: keys and values lie in blocks that we own, and a pass reads texts through them.

Accepting a node copies its slot, a fork shares blocks, and several texts are one pass (``pages.py`` keeps the books).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino
import torch

from decodery.core.values import Site, Tensor
from decodery.model.arena import Answer, Arena, Feed, Handle, Node
from decodery.model.openvino.attention import BLOCK
from decodery.model.openvino.graphs import ANY, PagedGraph
from decodery.model.openvino.pages import SPARE, Pages, Text
from decodery.model.openvino.places import FINAL, RESUMED, Cut, after

ROOM = 4096
"""Tokens that a cache has room for at first; its memory is taken from the system as it is written."""

Floats = npt.NDArray[np.float32]


class _Store(NamedTuple):
    """The memory of a cache, the graph's cache tensors over it, and the requests that have them."""

    cache: Floats
    """``[2 * layers, blocks, heads, 32, size]``"""
    tensors: list[Any]
    requests: dict[tuple[PagedGraph, int], Any]


class PagedArena(Arena):
    """Nodes in the blocks of a paged cache of their own; many arenas share a graph."""

    def __init__(self, graph: PagedGraph) -> None:
        super().__init__()
        self.graph, self.context = graph, graph.context
        self.pages = Pages(self.nodes, graph.form.window)
        self._copied: tuple[Any, Any, Floats] | None = None
        self._store = self._opened(SPARE + 1 + -(-min(ROOM, self.context) // BLOCK))

    def prepare(self) -> None:
        self.graph.prepare()

    def _freed(self, handle: Handle, node: Node) -> None:
        self.pages.freed(handle)

    def _compute(self, feed: Feed) -> Answer:
        self._move()  # what an interrupted pass has left to do
        stages = self.pages.stages(feed.handles)
        if len(stages) == 1:
            return self._pass(feed)
        answers = [self._pass(_part(feed, rows)) for rows in stages]
        fed = [row for rows in stages for row in rows]
        wanted = np.argsort([row for row in fed if feed.handles[row] in feed.wanted])
        return Answer(
            torch.cat([answer.logits for answer in answers])[wanted],
            _joined([answer.hidden for answer in answers], wanted),
            _joined([answer.every for answer in answers], np.argsort(fed)),
        )

    def _pass(self, feed: Feed) -> Answer:
        """The rows of the wanted nodes, and the states that are wanted."""
        texts = self.pages.plan(feed.handles)
        self._move()
        graph = self.graph.cut(_cut(feed))
        size = graph.size_for(len(feed.handles)) if len(texts) == 1 else ANY
        key = graph.key(size)
        if (request := self._store.requests.get((graph, key))) is None:
            request = self._store.requests[graph, key] = self._request(graph, key)
        order = [row for text in texts for row in text.rows]
        column = {row: at for at, row in enumerate(order)}
        wanted = [column[row] for row, handle in enumerate(feed.handles) if handle in feed.wanted]
        inputs = self._inputs(feed, texts, order, wanted, size)
        request.infer({name: data for name, data in inputs.items() if name in graph.inputs}, share_inputs=True)
        answer = Answer(torch.from_numpy(request.get_tensor("logits").data[0, : len(wanted)].copy()))
        for site in feed.want.hidden:
            states = torch.from_numpy(request.get_tensor(_place(site)).data[0])
            answer.hidden[site] = states[wanted]
            if feed.want.trunk:
                answer.every[site] = states[[column[row] for row in range(len(feed.handles))]]
        return answer

    def _inputs(self, feed: Feed, texts: list[Text], order: list[int], wanted: list[int], size: int) -> dict[str, Any]:
        """The inputs of a pass; one of a fixed size is filled up with tokens that see themselves and are not read."""
        filling = max(0, size - len(order))
        lengths = [len(text.rows) + filling for text in texts]
        tables = [text.table for text in texts]
        if filling and texts[0].past + size > len(tables[0]) * BLOCK:
            tables[0] = [*tables[0], SPARE]
        sees = [text.sees for text in texts]
        if filling:
            sees[0] = np.eye(size, dtype=np.bool_)
            sees[0][: len(order), : len(order)] = texts[0].sees
        positions = [self.nodes[feed.handles[row]].depth for row in order]
        inputs = {
            "input_ids": np.array([[feed.tokens[row] for row in order] + [0] * filling], np.int64),
            "position_ids": np.array([positions + [0] * filling], np.int64),
            "columns": np.array(wanted + [0] * (size - len(wanted) if size else 0), np.int64),
            "past_lens": np.array([text.past for text in texts], np.int32),
            "subsequence_begins": _begins(lengths),
            "block_indices": np.array([index for table in tables for index in table], np.int32),
            "block_indices_begins": _begins([len(table) for table in tables]),
            "max_context_len": np.array(max(t.past + n for t, n in zip(texts, lengths, strict=True)), np.int32),
            "qq_bias": np.concatenate([one.reshape(-1) for one in sees]).astype(np.uint8),
            "qq_bias_begins": _begins([n * n for n in lengths]),
        }
        if feed.states is not None:
            inputs[RESUMED] = np.pad(feed.states[order].float().numpy(), ((0, filling), (0, 0)))[None]
        return inputs

    def _move(self) -> None:
        """Make room for all blocks and copy the slots that must move.

        What is copied is noted before anything is overwritten, so after an interrupt the whole can be done again.
        """
        blocks = self._store.cache.shape[1]
        if self.pages.used > blocks:
            self._store = self._opened(max(self.pages.used, 2 * blocks), self._store.cache)
        if self.pages.moves:
            (to, at), (source, offset) = (
                divmod(np.array(list(slots)), BLOCK) for slots in (self.pages.moves, self.pages.moves.values())
            )
            self._copied = to, at, self._store.cache[:, source, :, offset]
            self.pages.moves.clear()
        if self._copied is not None:
            to, at, states = self._copied
            self._store.cache[:, to, :, at] = states
            self._copied = None

    def _opened(self, blocks: int, before: Floats | None = None) -> _Store:
        """Memory for so many blocks, the first of which are those of the cache before."""
        form = self.graph.form
        cache = np.zeros((2 * form.layers, blocks, form.heads, BLOCK, form.size), np.float32)
        if before is not None:
            cache[:, : before.shape[1]] = before
        return _Store(cache, [openvino.Tensor(part, shared_memory=True) for part in cache], {})

    def _request(self, graph: PagedGraph, key: int) -> Any:
        request = graph.request(key)
        for name, tensor in zip(self.graph.form.names(), self._store.tensors, strict=True):
            if name in graph.inputs:
                request.set_tensor(name, tensor)
        return request


def _cut(feed: Feed) -> Cut:
    """What the graph of a pass computes. Halves of layers are not to be had here, so each entry is a whole one."""
    layers = feed.variant.layers
    places = frozenset(map(_place, feed.want.hidden))
    return Cut(places, None if layers is None else frozenset(map(int, layers)), feed.states is not None)  # type: ignore[arg-type]


def _place(site: int | Site) -> str:
    return FINAL if isinstance(site, Site) else after(site)


def _joined(parts: list[dict[int | Site, Tensor]], order: Any) -> dict[int | Site, Tensor]:
    """The states of several passes, in another order."""
    return {site: torch.cat([states[site] for states in parts])[order] for site in parts[0]}


def _part(feed: Feed, rows: list[int]) -> Feed:
    """Some of the nodes of a feed."""
    handles, tokens, parents = ([of[row] for row in rows] for of in (feed.handles, feed.tokens, feed.parents))
    states = None if feed.states is None else feed.states[rows]
    return feed._replace(handles=handles, tokens=tokens, parents=parents, states=states)


def _begins(lengths: list[int]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int32)
