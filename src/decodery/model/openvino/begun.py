"""Kept graphs, compiled when they are asked for, or before that in the background.

Nothing here imports torch, so a graph is compiled while torch is still being imported.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

from decodery.model.openvino.attention import BLOCK
from decodery.model.openvino.folder import GRAPH, PAGED, UNPAGED, facts_in
from decodery.model.openvino.graphs import Made, paged_graph, sizes_kept

WARM = (BLOCK, 1)
"""The sizes of the passes that a graph runs before it is asked for any: the first pass of a prompt and the first of one token
lay the weights out for their kernels (0.4 and 0.25 s on SmolLM2, two cores)."""

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
    return paged_graph(folder / GRAPH, facts_in(folder), *sizes_kept(weights))
