"""The arena over paged attention: keys and values lie in blocks that we own, and a pass reads texts through them.

Accepting a node copies its slot, a fork shares blocks, and several texts are one pass (``pages.py`` keeps the books). The
graph is compiled for passes of any size, and in the background for the sizes that are wanted often, because a graph that
is run with another number of tokens than before prepares itself anew (5 to 12 ms on SmolLM2).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino
import torch

from decodery.model.arena import Answer, Arena, Feed, Handle, Node
from decodery.model.checkpoint import first_line
from decodery.model.openvino.attention import Unpaged, fixed, page
from decodery.model.openvino.backend import EXACT
from decodery.model.openvino.pages import BLOCK, SPARE, Pages, Text
from decodery.model.torch.facts import UNLIMITED, context_of, rope_border, windows_of

LOG = logging.getLogger(__name__)

LADDER = (1, 4, 8)
"""The sizes that graphs of their own are compiled for; a pass is padded up to the next. (A graph for 2 was no faster than
one for 4, and each takes memory.)"""

PATIENCE = 300
"""Passes before the next size is compiled. That takes two seconds, in which a pass takes 18 to 24 ms instead of 12 (SmolLM2,
two cores), and then saves 2 ms a pass, or 6 where the number of tokens changes: it does not pay within a short answer."""

ROOM = 4096
"""Tokens that a cache has room for at first; its memory is taken from the system as it is written."""

ANY = 0
"""The key of the graph for passes of any size."""

Floats = npt.NDArray[np.float32]


class PagedGraph:
    """A converted graph with paged attention, compiled for any size and for up to ``most`` sizes of ``LADDER``.

    Arenas of several threads may share it. Raises ``Unpaged`` where it cannot be made.
    """

    def __init__(self, source: Path, config: Any, most: int = 0) -> None:
        text = config.get_text_config()
        self.context = min(context_of(text), rope_border(text) or UNLIMITED)
        self._core = openvino.Core()
        self._lock = threading.Lock()
        self._sizes = LADDER[:most]
        self._due = list(self._sizes)
        self._passes = 0
        self._thread: threading.Thread | None = None
        self._ready: dict[int, Any] = {}
        self._graph = self._core.read_model(source)
        self.form = page(self._graph, windows_of(text))
        self._ready[ANY] = self._compiled(self._graph)

    def _compiled(self, graph: Any) -> Any:
        # No cache folder: a compiled graph that is read back has lost the facts that paged attention needs.
        return self._core.compile_model(graph, "CPU", EXACT)

    def key(self, size: int) -> int:
        """Which graph runs passes of this size now: its own, or that for ``ANY``."""
        return size if size in self._ready else ANY

    def request(self, key: int) -> Any:
        """A new request of the graph with this key; requests share the weights."""
        return self._ready[key].create_infer_request()

    def size_for(self, n: int) -> int:
        """How many tokens a pass of ``n`` new tokens of one text is filled up to: the next size of the ladder, or ``ANY``.

        After every ``PATIENCE`` passes one more size is compiled in the background, and serves from when it is ready. Before
        that passes are filled up too: the graph for any size then meets few sizes, each of which it must prepare for.
        """
        self._passes += 1
        if self._due and self._passes > PATIENCE:
            with self._lock:
                if self._due and (self._thread is None or not self._thread.is_alive()):
                    size, self._passes = self._due.pop(0), 0
                    # Not a daemon: the compiler must not be at work while the interpreter is taken down.
                    self._thread = threading.Thread(target=self._compile, args=(size,), name=f"decodery-compile-{size}")
                    self._thread.start()
        return next((size for size in self._sizes if size >= n), ANY)

    def prepare(self) -> None:
        """Compile now, and wait for, all that would be compiled later."""
        with self._lock:
            due, self._due = self._due, []
        if self._thread is not None:
            self._thread.join()
        for size in due:
            self._compile(size)

    def _compile(self, size: int) -> None:
        try:
            graph = self._graph.clone()  # over the same mapped file
            graph.reshape(fixed(size))
            self._ready[size] = self._compiled(graph)
        except Exception:  # the graph for any size serves; the size is not tried again
            LOG.exception("the graph for passes of %d tokens cannot be compiled; the one for any size goes on", size)


class _Store(NamedTuple):
    """The memory of a cache, the graph's cache tensors over it, and the requests that have them."""

    cache: Floats
    """``[2 * layers, blocks, heads, 32, size]``"""
    tensors: list[Any]
    requests: dict[int, Any]


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
            return Answer(self._pass(feed))
        logits = torch.cat([self._pass(_part(feed, rows)) for rows in stages])
        order = [row for rows in stages for row in rows if feed.handles[row] in feed.wanted]
        return Answer(logits[np.argsort(order)])

    def _pass(self, feed: Feed) -> torch.Tensor:
        """The rows of the wanted nodes."""
        texts = self.pages.plan(feed.handles)
        self._move()
        size = self.graph.size_for(len(feed.handles)) if len(texts) == 1 else ANY
        key = self.graph.key(size)
        if (request := self._store.requests.get(key)) is None:
            request = self._store.requests[key] = self._request(key)
        wanted = [row for row, handle in enumerate(feed.handles) if handle in feed.wanted]
        request.infer(self._inputs(feed, texts, wanted, size), share_inputs=True)
        rows = request.get_tensor("logits").data[0, : len(wanted)]
        return torch.from_numpy(rows.copy())

    def _inputs(self, feed: Feed, texts: list[Text], wanted: list[int], size: int) -> dict[str, Any]:
        """The inputs of a pass; one of a fixed size is filled up with tokens that see themselves and are not read."""
        order = [row for text in texts for row in text.rows]
        filling = max(0, size - len(order))
        column = {row: at for at, row in enumerate(order)}
        lengths = [len(text.rows) + filling for text in texts]
        tables = [text.table for text in texts]
        if filling and texts[0].past + size > len(tables[0]) * BLOCK:
            tables[0] = [*tables[0], SPARE]
        sees = [text.sees for text in texts]
        if filling:
            sees[0] = np.eye(size, dtype=np.bool_)
            sees[0][: len(order), : len(order)] = texts[0].sees
        columns = [column[row] for row in wanted]
        positions = [self.nodes[feed.handles[row]].depth for row in order]
        return {
            "input_ids": np.array([[feed.tokens[row] for row in order] + [0] * filling], np.int64),
            "position_ids": np.array([positions + [0] * filling], np.int64),
            "columns": np.array(columns + [0] * (size - len(columns) if size else 0), np.int64),
            "past_lens": np.array([text.past for text in texts], np.int32),
            "subsequence_begins": _begins(lengths),
            "block_indices": np.array([index for table in tables for index in table], np.int32),
            "block_indices_begins": _begins([len(table) for table in tables]),
            "max_context_len": np.array(max(t.past + n for t, n in zip(texts, lengths, strict=True)), np.int32),
            "qq_bias": np.concatenate([one.reshape(-1) for one in sees]).astype(np.uint8),
            "qq_bias_begins": _begins([n * n for n in lengths]),
        }

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

    def _request(self, key: int) -> Any:
        request = self.graph.request(key)
        for name, tensor in zip(self.graph.form.names(), self._store.tensors, strict=True):
            request.set_tensor(name, tensor)
        return request


def _part(feed: Feed, rows: list[int]) -> Feed:
    handles, tokens, parents = ([of[row] for row in rows] for of in (feed.handles, feed.tokens, feed.parents))
    return feed._replace(handles=handles, tokens=tokens, parents=parents)


def _begins(lengths: list[int]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int32)


def paged(graph: Path, config: Any, most: int = 0) -> tuple[Callable[[], PagedArena] | None, str]:
    """How to open arenas over the converted graph at this path; or None, and why paged attention cannot run it.

    ``most``: for how many sizes of passes a graph of their own may be compiled; each takes memory of its own.
    """
    try:
        from openvino.op import _PagedAttentionExtension  # noqa: F401
    except ImportError:
        return None, f"paged attention needs openvino 2026.4 or newer, and {openvino.__version__} is installed"
    try:
        made = PagedGraph(graph, config, most)
    except Unpaged as error:
        return None, f"the model has {error}"
    except Exception as error:  # the compiler has many kinds
        return None, f"paged attention cannot be compiled: {first_line(error)}"
    return lambda: PagedArena(made), ""
