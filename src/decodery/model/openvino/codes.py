"""The blocks of GGUF files as codes, scales and zeros in groups: value = (code - zero) * scale.

A block of a K kind holds several groups, whose scales and minima are small integers times two floats of the block; here each
group has a float32 of its own, as the CPU plugin wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Form(NamedTuple):
    """How groups are kept. Only rows of one form can be rows of one matrix."""

    bits: int
    size: int
    zero: bool


class Coded(NamedTuple):
    """Codes ``[rows, groups, size]`` (uint8, or int8 where there is no zero); scale and zero ``[rows, groups, 1]``."""

    codes: Any
    scale: Any
    zero: Any


FORMS = {
    "Q4_0": Form(4, 32, True),
    "Q4_1": Form(4, 32, True),
    "Q4_K": Form(4, 32, True),
    "Q5_0": Form(8, 32, True),
    "Q5_1": Form(8, 32, True),
    "Q5_K": Form(8, 32, True),
    "Q6_K": Form(8, 16, False),
    "Q8_0": Form(8, 32, False),
}
"""The kinds that can be unpacked. Codes of five bits take eight, for the plugin knows no others."""


def unpack(blocks: Any, kind: str) -> Coded:
    """The rows of a tensor, ``[rows, bytes]``, as codes; their values are those of ``gguf.dequantize`` up to rounding."""
    rows, form = len(blocks), FORMS[kind]
    size, read = _READERS[kind]
    codes, scale, low = read(np.ascontiguousarray(blocks, np.uint8).reshape(-1, size))
    codes, scale = codes.reshape(rows, -1, form.size), scale.reshape(rows, -1, 1)
    if low is None:
        return Coded(codes, scale, None)
    low = low.reshape(rows, -1, 1)
    if kind in ("Q4_0", "Q5_0"):  # these have a zero in the middle and no minimum
        return Coded(codes, scale, low)
    # A group of one value may have scale 0, and then no zero could give that value.
    flat = scale == 0
    scale = np.where(flat, np.float32(1), scale)
    return Coded(np.where(flat, np.uint8(0), codes), scale, -low / scale)


def _half(part: Any) -> Any:
    return np.ascontiguousarray(part).view(np.float16).astype(np.float32)


def _nibbles(packed: Any, run: int) -> Any:
    """Each run of bytes holds as many low halves of codes, and then the high ones."""
    runs = packed.reshape(len(packed), -1, 1, run)
    return np.concatenate([runs & 15, runs >> 4], 2).reshape(len(packed), -1)


def _fifth(packed: Any) -> Any:
    """The fifth bits of 32 codes, in four bytes."""
    return np.unpackbits(packed, axis=-1, bitorder="little") << 4


def _q4_0(block: Any) -> tuple[Any, Any, Any]:
    scale = _half(block[:, :2])
    return _nibbles(block[:, 2:], 16), scale, np.full_like(scale, 8)


def _q4_1(block: Any) -> tuple[Any, Any, Any]:
    return _nibbles(block[:, 4:], 16), _half(block[:, :2]), _half(block[:, 2:4])


def _q5_0(block: Any) -> tuple[Any, Any, Any]:
    scale = _half(block[:, :2])
    return _nibbles(block[:, 6:], 16) | _fifth(block[:, 2:6]), scale, np.full_like(scale, 16)


def _q5_1(block: Any) -> tuple[Any, Any, Any]:
    codes = _nibbles(block[:, 8:], 16) | _fifth(block[:, 4:8])
    return codes, _half(block[:, :2]), _half(block[:, 2:4])


def _q8_0(block: Any) -> tuple[Any, Any, Any]:
    return block[:, 2:].view(np.int8), _half(block[:, :2]), None


def _scales_of_k(block: Any) -> tuple[Any, Any]:
    """Eight scales and eight minima in six bits each, packed in twelve bytes behind two floats."""
    first, second, upper = (block[:, start : start + 4] for start in (4, 8, 12))
    scale = np.concatenate([first & 63, (upper & 15) | ((first >> 2) & 48)], -1)
    low = np.concatenate([second & 63, (upper >> 4) | ((second >> 2) & 48)], -1)
    return _half(block[:, :2]) * scale.astype(np.float32), -(_half(block[:, 2:4]) * low.astype(np.float32))


def _q4_k(block: Any) -> tuple[Any, Any, Any]:
    return _nibbles(block[:, 16:], 32), *_scales_of_k(block)


def _q5_k(block: Any) -> tuple[Any, Any, Any]:
    bits = (block[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1  # bit g of 32 bytes belongs to group g
    return _nibbles(block[:, 48:], 32) | (bits << 4).reshape(len(block), -1), *_scales_of_k(block)


def _q6_k(block: Any) -> tuple[Any, Any, Any]:
    pairs = block[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    codes = _nibbles(block[:, :128], 64) | ((pairs & 3) << 4).reshape(len(block), -1)
    scale = _half(block[:, 208:]) * block[:, 192:208].view(np.int8).astype(np.float32)
    return (codes - np.uint8(32)).view(np.int8), scale, None


_READERS: dict[str, tuple[int, Callable[[Any], tuple[Any, Any, Any]]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
}
"""Bytes of a block, and how it is read: codes, scale, and the minimum (Q4_0 and Q5_0: the zero)."""
