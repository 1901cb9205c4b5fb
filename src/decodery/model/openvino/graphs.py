"""A converted graph with paged attention, compiled for passes of any size and for the sizes that are wanted often.

A graph that is run with another number of tokens than before prepares itself anew (5 to 12 ms on SmolLM2); one that was
compiled for a size does not. Nothing here imports torch, so a graph is compiled while torch is still being imported.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from decodery.core.defaults import threads_wanted
from decodery.core.errors import first_line
from decodery.model.checkpoint import memory_bytes
from decodery.model.facts import Facts
from decodery.model.openvino.attention import BLOCK, Unpaged, fixed, page
from decodery.model.openvino.places import RESUMED, WHOLE, Cut, carve, offers

LOG = logging.getLogger(__name__)

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "PERFORMANCE_HINT": "LATENCY",
}
"""Without these the cache is kept in 8 bits and rows agree to 1e-2 only."""


def settings() -> dict[str, str]:
    """``EXACT``, and the number of threads where ``$DECODERY_THREADS`` says it."""
    threads = threads_wanted()
    return EXACT if threads is None else EXACT | {"INFERENCE_NUM_THREADS": str(threads)}


LADDER = (1, 4, 8)
"""The sizes that graphs of their own are compiled for; a pass is padded up to the next. (A graph for 2 was no faster than
one for 4, and each takes memory.)"""

SHARE = 2
"""All graphs together take at most this part of the machine's memory (one half), each about as much as its weights; the one
for any size takes ``ALONE`` times that."""

ALONE = 2

PATIENCE = 300
"""Passes before the next size is compiled. That takes two seconds, in which a pass takes 18 to 24 ms instead of 12 (SmolLM2,
two cores), and then saves 2 ms a pass, or 6 where the number of tokens changes: it does not pay within a short answer."""

ANY = 0
"""The key of the graph for passes of any size."""


class PagedGraph:
    """A converted graph with paged attention, compiled for any size and for up to ``most`` sizes of ``LADDER``.

    ``spare``: how many more compilations there is memory for; ``cut``: what it computes. Arenas of several threads may
    share it. Raises ``Unpaged`` where it cannot be made.
    """

    def __init__(self, source: Path, facts: Facts, most: int = 0, spare: int = 0, cut: Cut = WHOLE) -> None:
        self.context = facts.context
        self._source, self._facts, self._spare = source, facts, spare
        self._core = openvino.Core()
        self._lock = threading.Lock()
        self._cutting = threading.Lock()
        self._cuts: dict[Cut, PagedGraph] = {cut: self}
        self._sizes = LADDER[:most]
        self._due = list(self._sizes)
        self._passes = 0
        self._thread: threading.Thread | None = None
        self._ready: dict[int, Any] = {}
        self._graph = self._core.read_model(source)
        self.form = page(self._graph, facts.windows)
        self.watched = offers(self._graph, facts.depth)
        carve(self._graph, cut, facts.depth)
        self.inputs = frozenset(port.any_name for port in self._graph.inputs)
        self._ready[ANY] = self._compiled(self._graph)

    def _compiled(self, graph: Any) -> Any:
        # No cache folder: a compiled graph that is read back has lost the facts that paged attention needs.
        return self._core.compile_model(graph, "CPU", settings())

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self._sizes))
        later = f"; passes of {sizes} tokens get graphs of their own after {PATIENCE} passes each" if sizes else ""
        return f"pages of {BLOCK} tokens{later}"

    def cut(self, cut: Cut) -> PagedGraph:
        """A graph over the same file that computes what ``cut`` says; it is compiled when it is asked for first."""
        if (known := self._cuts.get(cut)) is not None:
            return known
        with self._cutting:
            known = next((graph for other, graph in self._cuts.items() if other.serves(cut)), None)
            if known is None:
                most = max(0, min(len(LADDER), self._spare - ALONE))
                self._spare -= ALONE + most
                known = PagedGraph(self._source, self._facts, most, 0, cut)
            self._cuts[cut] = known
        return known

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

    def warm(self, n: int) -> None:
        """Run a pass of ``n`` tokens, at most ``BLOCK``, of a text that nobody reads."""
        with suppress(Exception):  # whatever fails will fail again
            self._warm(n)

    def _warm(self, n: int) -> None:
        request, form = self.request(ANY), self.form
        for name in form.names():
            request.set_tensor(name, openvino.Tensor(np.zeros((1, form.heads, BLOCK, form.size), np.float32)))
        whole = np.arange(n, dtype=np.int64)
        request.infer(
            {
                "input_ids": np.zeros((1, n), np.int64),
                "position_ids": whole[None],
                "columns": whole[-1:],
                "past_lens": np.zeros(1, np.int32),
                "subsequence_begins": np.array([0, n], np.int32),
                "block_indices": np.zeros(1, np.int32),
                "block_indices_begins": np.array([0, 1], np.int32),
                "max_context_len": np.array(n, np.int32),
                "qq_bias": np.tri(n, dtype=np.uint8).reshape(-1),
                "qq_bias_begins": np.array([0, n * n], np.int32),
            }
        )

    def _compile(self, size: int) -> None:
        try:
            graph = self._graph.clone()  # over the same mapped file
            shapes = fixed(size) | {RESUMED: [1, size, -1]}
            graph.reshape({name: shape for name, shape in shapes.items() if name in self.inputs})
            self._ready[size] = self._compiled(graph)
        except Exception:  # the graph for any size serves; the size is not tried again
            LOG.exception("the graph for passes of %d tokens cannot be compiled; the one for any size goes on", size)


def sizes_kept(weights: int) -> tuple[int, int]:
    """For how many sizes of ``LADDER`` graphs are kept, where the weights take so many bytes, and how many more there is
    memory for."""
    copies = memory_bytes() // SHARE // max(weights, 1)
    most = max(0, min(len(LADDER), copies - ALONE))
    return most, max(0, copies - ALONE - most)


Made = tuple[PagedGraph | None, str]
"""A graph with paged attention, or None and why there is none."""


def paged_graph(source: Path, facts: Facts, most: int = 0, spare: int = 0, cut: Cut = WHOLE) -> Made:
    """The converted graph at this path with paged attention, or why there is none.

    ``most``: for how many sizes of passes a graph of their own may be compiled; each takes memory of its own.
    """
    try:
        from openvino.op import _PagedAttentionExtension  # noqa: F401
    except ImportError:
        return None, f"paged attention needs openvino 2026.4 or newer, and {openvino.__version__} is installed"
    try:
        return PagedGraph(source, facts, most, spare, cut), ""
    except Unpaged as error:
        return None, f"the model has {error}"
    except Exception as error:  # the compiler has many kinds
        return None, f"paged attention cannot be compiled: {first_line(error)}"
