"""A converted graph with paged attention, compiled for passes of any size and for the sizes that are wanted often.

A graph that is run with another number of tokens than before prepares itself anew (5 to 12 ms on SmolLM2); one that was
compiled for a size does not. Nothing here imports torch, so a graph is compiled while torch is still being imported.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
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
from decodery.model.openvino.folder import GRAPH, PAGED, UNPAGED, facts_in

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
for any size takes twice that."""

PATIENCE = 300
"""Passes before the next size is compiled. That takes two seconds, in which a pass takes 18 to 24 ms instead of 12 (SmolLM2,
two cores), and then saves 2 ms a pass, or 6 where the number of tokens changes: it does not pay within a short answer."""

ANY = 0
"""The key of the graph for passes of any size."""

WARM = (BLOCK, 1)
"""The sizes of the passes that a graph runs before it is asked for any: the first pass of a prompt and the first of one token
lay the weights out for their kernels (0.4 and 0.25 s on SmolLM2, two cores)."""


class PagedGraph:
    """A converted graph with paged attention, compiled for any size and for up to ``most`` sizes of ``LADDER``.

    Arenas of several threads may share it. Raises ``Unpaged`` where it cannot be made.
    """

    def __init__(self, source: Path, facts: Facts, most: int = 0) -> None:
        self.context = facts.context
        self._core = openvino.Core()
        self._lock = threading.Lock()
        self._sizes = LADDER[:most]
        self._due = list(self._sizes)
        self._passes = 0
        self._thread: threading.Thread | None = None
        self._ready: dict[int, Any] = {}
        self._graph = self._core.read_model(source)
        self.form = page(self._graph, facts.windows)
        self._ready[ANY] = self._compiled(self._graph)

    def _compiled(self, graph: Any) -> Any:
        # No cache folder: a compiled graph that is read back has lost the facts that paged attention needs.
        return self._core.compile_model(graph, "CPU", settings())

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self._sizes))
        later = f"; passes of {sizes} tokens get graphs of their own after {PATIENCE} passes each" if sizes else ""
        return f"pages of {BLOCK} tokens{later}"

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
        """Run a pass of ``n`` tokens, at most ``BLOCK``, of a text that nobody reads; whatever fails will fail again."""
        with suppress(Exception):
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
            graph.reshape(fixed(size))
            self._ready[size] = self._compiled(graph)
        except Exception:  # the graph for any size serves; the size is not tried again
            LOG.exception("the graph for passes of %d tokens cannot be compiled; the one for any size goes on", size)


def sizes_kept(weights: int) -> int:
    """For how many sizes of ``LADDER`` graphs are kept, where the weights take so many bytes."""
    return max(0, min(len(LADDER), memory_bytes() // SHARE // max(weights, 1) - 2))


Made = tuple[PagedGraph | None, str]
"""A graph with paged attention, or None and why there is none."""


def paged_graph(source: Path, facts: Facts, most: int = 0) -> Made:
    """The converted graph at this path with paged attention.

    ``most``: for how many sizes of passes a graph of their own may be compiled; each takes memory of its own.
    """
    try:
        from openvino.op import _PagedAttentionExtension  # noqa: F401
    except ImportError:
        return None, f"paged attention needs openvino 2026.4 or newer, and {openvino.__version__} is installed"
    try:
        return PagedGraph(source, facts, most), ""
    except Unpaged as error:
        return None, f"the model has {error}"
    except Exception as error:  # the compiler has many kinds
        return None, f"paged attention cannot be compiled: {first_line(error)}"


_begun: dict[Path, Future[Made]] = {}
_beginning = threading.Lock()


def begin(folder: Path) -> None:
    """Compile the graph kept in this folder in the background, if it is one for paged attention: ``graph_in`` takes it.

    As long as nobody does, the graph is warmed up.
    """
    with _beginning:
        if folder in _begun or not (folder / PAGED).exists():
            return
        made = _begun[folder] = Future[Made]()

    def compiled() -> None:
        try:
            result = _made(folder)
        except Exception as error:
            made.set_exception(error)
            return
        made.set_result(result)
        graph, _ = result
        for size in WARM:
            if graph is not None and _begun.get(folder) is made:  # nobody has taken it yet
                graph.warm(size)

    # Not a daemon: the compiler must not be at work while the interpreter is taken down.
    threading.Thread(target=compiled, name="decodery-compile").start()


def graph_in(folder: Path) -> Made:
    """The graph kept in a folder, where it was found right over paged attention at the conversion: the one that was begun,
    which goes to one caller only, or a new one."""
    if not (folder / PAGED).exists():
        return None, (folder / UNPAGED).read_text()
    with _beginning:
        made = _begun.pop(folder, None)
    return _made(folder) if made is None else made.result()


def _made(folder: Path) -> Made:
    weights = (folder / GRAPH).with_suffix(".bin").stat().st_size
    return paged_graph(folder / GRAPH, facts_in(folder), sizes_kept(weights))
