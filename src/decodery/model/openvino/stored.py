"""The rows of a GGUF file, found by their values."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from decodery.model.openvino.codes import FORMS, Coded, Form, unpack

CHUNK = 1 << 24
"""At most so many numbers of a file are floats at one time."""


class Stored:
    """The rows of a GGUF file, each found by the hash of its float32 values.

    Rows are looked for, and not tensors: transformers permutes rows of some tensors, and we join tensors, but a row stays
    whole. Of each row the hash is kept in memory only.
    """

    def __init__(self, file: Path) -> None:
        self.name = file.name
        self.others: list[str] = []
        """Kinds of matrices in the file that are not kept as codes."""
        self._tensors: list[tuple[Any, str]] = []
        self._starts: list[int] = []
        self._rows: dict[Form, dict[bytes, int]] = {}
        end = 0
        for tensor in gguf.GGUFReader(file).tensors:
            kind = tensor.tensor_type.name
            if kind not in FORMS:
                if kind != "F32" and kind not in self.others:
                    self.others.append(kind)
                continue
            blocks = tensor.data.reshape(-1, tensor.data.shape[-1])
            self._tensors.append((blocks, kind))
            self._starts.append(end)
            known = self._rows.setdefault(FORMS[kind], {})
            for digest in _digests_of(blocks, tensor):
                known.setdefault(digest, end)
                end += 1

    def find(self, rows: list[bytes]) -> tuple[Form, Coded] | None:
        """The codes of the rows with these hashes, where all are in the file in one form."""
        for form, known in self._rows.items():
            numbers = [known.get(row, -1) for row in rows]
            if -1 not in numbers:
                return form, self._codes(numbers)
        return None

    def form(self, matrix: Any) -> Form | None:
        """The form of a matrix, judged by its first row; matrices of several forms had better not be joined."""
        (row,) = digests(matrix[:1].reshape(1, -1))
        return next((form for form, known in self._rows.items() if row in known), None)

    def _codes(self, numbers: list[int]) -> Coded:
        homes = np.array([bisect_right(self._starts, number) - 1 for number in numbers])
        order, parts = [], []
        for home in np.unique(homes):
            (places,) = np.nonzero(homes == home)
            blocks, kind = self._tensors[home]
            order.append(places)
            parts.append(unpack(blocks[np.array(numbers)[places] - self._starts[home]], kind))
        back = np.argsort(np.concatenate(order))
        codes, scale = (np.concatenate([part[i] for part in parts])[back] for i in (0, 1))
        zero = None if parts[0].zero is None else np.concatenate([part.zero for part in parts])[back]
        return Coded(codes, scale, zero)


def digests(rows: Any) -> list[bytes]:
    """A hash of each row of a float32 matrix."""
    return [blake2b(row, digest_size=16).digest() for row in np.ascontiguousarray(rows, np.float32)]


def _digests_of(blocks: Any, tensor: Any) -> Iterator[bytes]:
    step = max(1, CHUNK // int(tensor.shape[0]))
    for start in range(0, len(blocks), step):
        yield from digests(gguf.dequantize(blocks[start : start + step], tensor.tensor_type))
