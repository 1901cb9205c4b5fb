"""Datastores: texts as token ids on disk with all suffixes sorted, so that what followed any words is found at once.

A store is a directory: ``meta.json``; ``tokens.bin``, the ids in uint32, big-endian so that their bytes are ordered as they
are, a ``SEPARATOR`` behind each document; ``suffixes.bin``, all positions in little-endian uint32, sorted by the ``REACH``
tokens that begin there. It takes 8 bytes a token on disk and next to nothing in memory: both files are mapped.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from decodery.core.errors import BadStore, PartsClash
from decodery.core.files import write_folder
from decodery.core.part import Model
from decodery.core.tree import ROOT, TokenTree

FORMAT = 1
SEPARATOR = 0xFFFFFFFF
"""No token: no continuation crosses it."""
REACH = 32
"""Longest words that can be looked up. Sorting further would cost time and change nothing."""
PIECE = 1 << 16
"""Characters given to the tokenizer at once; pieces end with a line where they can."""

Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Store:
    """An open datastore: ``tokens`` ``[n]`` and ``suffixes`` ``[n]``, and the ``fingerprint`` of the tokenizer they are of."""

    tokens: Ids
    suffixes: Ids
    fingerprint: str
    name: str = "datastore"

    @classmethod
    def of(cls, documents: Iterable[Sequence[int]], fingerprint: str, name: str = "datastore") -> Store:
        """A store in memory. Raises ``BadStore`` where there is not one token."""
        parts = [np.array([*document, SEPARATOR], np.uint32) for document in documents if len(document)]
        if not parts:
            raise BadStore("the corpus is empty: a datastore needs at least one token of text")
        tokens = np.concatenate(parts).astype(">u4")
        return cls(tokens, _sorted(tokens).astype("<u4"), fingerprint, name)

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """The store in a directory, checked against its checksums. Raises ``BadStore`` with what is wrong."""
        path = Path(path).expanduser()
        if not path.is_dir():
            raise BadStore(f"there is no datastore at {path}; build one: decodery index FILES -o {path} --model MODEL")
        try:
            meta = json.loads((path / "meta.json").read_text())
            form, fingerprint = meta["format"], str(meta["tokenizer"])
            n, sums = int(meta["tokens"]), dict(meta["crc32"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadStore(f"{path} is no datastore: its meta.json cannot be read ({error!r})") from error
        if form != FORMAT:
            raise BadStore(f"{path} is a datastore of format {form}, this Decodery reads {FORMAT}: build it again")
        arrays: list[Ids] = []
        for name, kind in (("tokens.bin", ">u4"), ("suffixes.bin", "<u4")):
            file = path / name
            if not file.is_file() or file.stat().st_size != 4 * n or not n:
                raise BadStore(f"the datastore {path} is damaged: {name} should hold {n} numbers; build it again")
            array: Ids = np.memmap(file, kind, "r")
            if zlib.crc32(array.data) != sums.get(name):
                raise BadStore(f"the datastore {path} is damaged: {name} is not what was written; build it again")
            arrays.append(array)
        return cls(arrays[0], arrays[1], fingerprint, str(path))

    @classmethod
    def fit(cls, path: object, model: Model, opened: list[Store]) -> Store:
        """A store, or the one in a directory, for this model's tokens. Raises ``PartsClash`` where they are another's.

        ``opened`` keeps it for the next call: to open a directory is to read all of it.
        """
        if not opened:
            opened.append(path if isinstance(path, Store) else cls.open(str(path)))
        store = opened[0]
        if store.fingerprint != model.fingerprint():
            raise PartsClash(
                f"the datastore {store.name} was made with another tokenizer than this model's: "
                "build it again with decodery index --model and this model"
            )
        return store

    def write(self, path: str | Path, **notes: Any) -> None:
        """Write the store to a new directory, whole or not at all; ``notes`` go into its meta.json."""
        path = Path(path).expanduser().absolute()
        _check(path)
        try:
            write_folder(path, lambda folder: self._fill(folder, notes))
        except OSError as error:
            raise BadStore(f"the datastore is not written: {error}") from error

    def _fill(self, folder: Path, notes: dict[str, Any]) -> None:
        files = {"tokens.bin": self.tokens, "suffixes.bin": self.suffixes}
        for name, array in files.items():
            array.tofile(folder / name)
        sums = {name: zlib.crc32(array.data) for name, array in files.items()}
        meta = {"format": FORMAT, "tokens": len(self), "tokenizer": self.fingerprint, "crc32": sums, **notes}
        (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")

    def __len__(self) -> int:
        return len(self.tokens)

    def find(self, words: Sequence[int], shortest: int = 1) -> tuple[int, range]:
        """The longest end of ``words`` (at most ``REACH`` tokens) that occurs, and where in ``suffixes``; 0 if none does."""
        found = 0, range(0)
        low, high = max(1, shortest), min(len(words), REACH)
        while low <= high:  # where n words occur, the last n - 1 of them do too
            middle = (low + high) // 2
            if places := self._places(words[len(words) - middle :]):
                found, low = (middle, places), middle + 1
            else:
                high = middle - 1
        return found

    def following(self, places: range, skip: int, length: int) -> list[list[int]]:
        """The up to ``length`` tokens that stand ``skip`` behind each place, up to the document's end."""
        starts = self.suffixes[places.start : places.stop : places.step].astype(np.int64) + skip
        at = np.minimum(starts[:, None] + np.arange(length), len(self) - 1)  # the last one is a separator
        rows: list[list[int]] = self.tokens[at].tolist()
        return [row[: row.index(SEPARATOR)] if SEPARATOR in row else row for row in rows]

    def _places(self, words: Sequence[int]) -> range:
        sought, memory = np.array(words, ">u4").tobytes(), self.tokens.data.cast("B")

        def text(place: Any) -> bytes:
            start = 4 * int(place)
            return bytes(memory[start : start + len(sought)])

        suffixes: Any = self.suffixes
        start = bisect_left(suffixes, sought, key=text)
        return range(start, bisect_right(suffixes, sought, start, key=text))


def index(
    files: Sequence[Path], encode: Callable[[str], Sequence[int]], fingerprint: str, path: Path, **notes: Any
) -> Store:
    """Build a store of text files and write it. About 60 bytes of memory a token while it sorts."""
    _check(path.expanduser().absolute())
    store = Store.of(_documents(files, encode), fingerprint, str(path))
    store.write(path, documents=len(files), **notes)
    return store


def _check(path: Path) -> None:
    """Raise ``BadStore`` where no store can be made."""
    if path.exists():
        raise BadStore(f"{path} exists; choose another name or remove it first")
    if not path.parent.is_dir():
        raise BadStore(f"cannot write the datastore: there is no folder {path.parent}")


def _documents(files: Sequence[Path], encode: Callable[[str], Sequence[int]]) -> Iterator[Sequence[int]]:
    for file in files:
        if not file.is_file():
            raise BadStore(f"no such text file: {file}" + "; it is a folder: name files in it" * file.is_dir())
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadStore(f"{file} is not text in UTF-8: {error}") from error
        tokens: list[int] = []
        while text:
            cut = text.rfind("\n", 0, PIECE) + 1 or PIECE
            tokens += encode(text[:cut])
            text = text[cut:]
        yield tokens


def _sorted(tokens: Ids) -> npt.NDArray[np.int64]:
    """Positions ordered by the ``REACH`` tokens from there, by prefix doubling (Manber & Myers 1990)."""
    rank: npt.NDArray[np.int64] = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    order, reach = np.argsort(rank, kind="stable"), 1
    while reach < min(REACH, len(tokens)):
        key = rank * (len(tokens) + 1)
        key[:-reach] += rank[reach:] + 1
        order = np.argsort(key, kind="stable")
        steps = np.diff(key[order], prepend=key[order[0]]) > 0
        rank[order] = np.cumsum(steps)
        reach *= 2
    return order


def heaviest(paths: Sequence[Sequence[int]], nodes: int, kind: Hashable = 0) -> tuple[TokenTree, float]:
    """The ``nodes`` beginnings that most paths share, all of one kind, and how many of them a path has on average."""
    places: dict[tuple[int, int], int] = {}
    weight: list[int] = []
    for path in paths:
        parent = ROOT
        for token in path:
            node = places.setdefault((parent, token), len(weight))
            if node == len(weight):
                weight.append(0)
            weight[node] += 1
            parent = node
    # A parent weighs no less than its children and came first, so the order is parents first.
    tree, at, shared = TokenTree(), {ROOT: ROOT}, 0
    known = list(places)
    for node in sorted(range(len(known)), key=lambda node: -weight[node])[:nodes]:
        parent, token = known[node]
        at[node] = tree.add(token, at[parent], kind=kind)
        shared += weight[node]
    return tree, shared / max(1, len(paths))
