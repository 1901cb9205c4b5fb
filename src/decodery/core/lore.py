"""What parts learn, apart from the parts: one object, shared by the copies of a part, by threads, and through files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

import numpy as np

from decodery.core.values import NO_TOKEN, Array

K = TypeVar("K")
V = TypeVar("V")
Arrays = Mapping[str, Array]


@dataclass
class Lore:
    """What outlives a request. What changes it, or reads more than one entry of it, does so while it holds ``lock``; who
    calls ``arrays`` and ``merge`` takes it before.

    ``files``: the arrays of each file as this object last read or wrote it, so that what was learnt since can be told.
    """

    lock: AbstractContextManager[Any] = field(default_factory=RLock, init=False, repr=False, compare=False)
    files: dict[Path, Arrays] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """Tells apart what must not be mixed though the tokenizer is the same; usually nothing."""
        return ""

    def arrays(self) -> dict[str, Array]:
        """All of it as arrays for a file: float64, or uint32 for token ids, ``NO_TOKEN`` where a row has fewer.

        The arrays have their names even while they are empty; no arrays at all means that it is not kept in files.
        """
        return {}

    def merge(self, theirs: Arrays, since: Arrays) -> None:
        """Take up ``theirs``, which was learnt elsewhere, and keep what was learnt here after ``since``, which may be empty.

        Raises ``ValueError`` where one of them is not what ``arrays`` gives, under whatever parameters that was.
        """

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=RLock())


@dataclass
class Entries(Lore, Generic[K, V]):
    """Lore that is a table, what was learnt longest ago first. Values are replaced, never changed in place."""

    known: dict[K, V] = field(default_factory=dict, kw_only=True)

    def read(self, arrays: Arrays) -> dict[K, V]:
        """The table that ``arrays`` holds, of any size; ``ValueError`` where it holds none."""
        return {}

    def both(self, mine: V, since: V | None, theirs: V | None) -> V:
        """The value of a key that was learnt here after ``since``; by default this one stands."""
        return mine

    def fit(self, known: dict[K, V]) -> dict[K, V]:
        """The table within the size that this object keeps."""
        return known

    def merge(self, theirs: Arrays, since: Arrays) -> None:
        before, merged = (self.read(arrays) if arrays else {} for arrays in (since, theirs))
        fresh = {key: mine for key, mine in self.known.items() if before.get(key) != mine}
        # The oldest is what only this object still has; then what the file holds, then what was learnt here last.
        merged = {key: mine for key, mine in self.known.items() if key not in fresh and key not in merged} | merged
        for key, mine in fresh.items():
            merged[key] = self.both(mine, before.get(key), merged.pop(key, None))
        self.known = self.fit(merged)


def filled(rows: Collection[Collection[float]], width: int, dtype: type = np.uint32) -> Array:
    """Rows of at most ``width`` numbers as an array ``[n, width]``, filled up with ``NO_TOKEN`` (or zeros)."""
    array: Array = np.full((len(rows), width), NO_TOKEN if dtype is np.uint32 else 0, dtype)
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = list(row)
    return array
