"""Blocks of GGUF files as codes: the values are those of gguf's own reader."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.model.openvino.codes import FORMS, unpack

HALVES = {"Q4_0": 1, "Q4_1": 2, "Q5_0": 1, "Q5_1": 2, "Q8_0": 1, "Q4_K": 2, "Q5_K": 2, "Q6_K": 1}
"""How many float16 a block has: in front of all else, but at the end of Q6_K."""
HALF = st.integers(0, 0xFFFF).map(lambda bits: bits & ~0x0400)
"""Bits of a float16, without one bit of the exponent: so never infinite."""


def agree(blocks: Any, kind: str) -> None:
    """``blocks``: ``[rows, bytes]``."""
    form = FORMS[kind]
    due = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind]).reshape(len(blocks), -1, form.size)
    codes, scale, zero = unpack(blocks, kind)
    assert codes.shape == due.shape
    assert scale.shape == (*due.shape[:2], 1)
    assert scale.dtype == np.float32
    assert codes.dtype == (np.uint8 if form.zero else np.int8)
    if form.zero:
        assert zero.shape == scale.shape
        assert zero.dtype == np.float32
        assert codes.max() < (16 if form.bits == 4 else 32)
        ours = (codes.astype(np.float32) - zero) * scale
        ends = np.abs((np.array([0, 15 if form.bits == 4 else 31], np.float32) - zero) * scale).max(-1, keepdims=True)
    else:
        assert zero is None
        ours, ends = codes.astype(np.float32) * scale, 0
    largest = np.maximum(np.abs(due).max(-1, keepdims=True), ends)  # all codes of a group may lie near its zero
    assert (np.abs(ours - due) <= 1e-6 * largest).all()


@pytest.mark.parametrize("kind", FORMS)
@given(seed=st.integers(0, 10**6), fill=st.sampled_from([None, 0, 1, 127, 128, 240, 255]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_block(kind: str, seed: int, fill: int | None, data: Any) -> None:
    """Random or extreme bytes with any finite scales."""
    of = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks = np.random.default_rng(seed).integers(0, 256, (6, of), np.uint8)
    if fill is not None:
        blocks[::2] = fill
    place = slice(of - 2, of) if kind == "Q6_K" else slice(0, 2 * HALVES[kind])
    for block in blocks:
        block[place] = np.array([data.draw(HALF) for _ in range(HALVES[kind])], np.uint16).view(np.uint8)
    agree(blocks.reshape(2, -1), kind)


@pytest.mark.parametrize("kind", [kind for kind in FORMS if not kind.endswith("K")])
@given(
    seed=st.integers(0, 10**6), size=st.sampled_from([1e-6, 0.02, 1.0, 900.0]), shift=st.sampled_from([0.0, 1.0, 50.0])
)
@settings(max_examples=30, deadline=None)
def test_quantised_rows(kind: str, seed: int, size: float, shift: float) -> None:
    rows = np.random.default_rng(seed).normal(shift * size, size, (3, 128)).astype(np.float32)
    agree(gguf.quantize(rows, gguf.GGMLQuantizationType[kind]), kind)


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_1"])
def test_a_group_of_one_value_keeps_it(kind: str) -> None:
    rows = np.full((2, 64), 0.625, np.float32)
    rows[1] = 0
    codes, scale, zero = unpack(gguf.quantize(rows, gguf.GGMLQuantizationType[kind]), kind)
    assert not codes.any()
    assert (scale == 1).all()
    np.testing.assert_array_equal((codes - zero) * scale, rows.reshape(2, 2, 32))
