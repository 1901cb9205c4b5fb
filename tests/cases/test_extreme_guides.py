"""Guides with very small and very large numbers: the law is the limit, never infinite or not a number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import decodery
from decodery.core.errors import DecoderyError
from decodery.core.law import Law
from decodery.core.roles import Guide, Laws
from decodery.core.values import Rows
from decodery.guide.cfg import ClassifierFree
from decodery.guide.frequency import Frequency
from decodery.guide.min_p import MinP
from decodery.guide.presence import Presence
from decodery.guide.repetition import Repetition
from decodery.guide.temperature import Temperature
from decodery.guide.top_p import TopP
from decodery.guide.typical_p import TypicalP
from decodery.run.recipe import part

from .text_common import model, words

SMALL = (1e-5, 1e-7, 1e-30, 1e-38, 1e-39, 1e-45, 1e-46, 1e-250, 1e-300, 5e-324)
LARGE = (1e7, 1e30, 1e38, 1e39, 1e250, 1.7e308)


@pytest.mark.parametrize("t", SMALL)
@pytest.mark.parametrize("draft", ["none", "ngram"])
def test_a_small_temperature_is_greedy(t: float, draft: str) -> None:
    loaded = model(words(120))
    options: dict[str, Any] = {"max_new_tokens": 8, "ignore_eos": True, "draft": draft}
    greedy = decodery.decode(loaded, [3, 4, 5], **options).tokens
    assert decodery.decode(loaded, [3, 4, 5], guide=f"temperature:{t!r}", seed=1, **options).tokens == greedy
    guides = [f"temperature:{t!r}", "repetition:1.0", "top-p:0.9", "typical-p:0.9", "min-p:0.1"]
    assert decodery.decode(loaded, [3, 4, 5], guide=guides, seed=1, **options).tokens == greedy


def law(guide: Guide, logits: Any, negative: Any = None, dtype: torch.dtype = torch.float32) -> list[float]:
    """The law of one row after the tokens 0 and 1, which are the answer so far."""
    rows = Rows(torch.tensor([logits], dtype=dtype), [0, 1], [()])
    if negative is not None:
        rows.companions[0, "negative"] = Rows(torch.tensor([negative], dtype=dtype), [0, 1], [()])
    found: Law = Laws((guide,), greedy=False)(rows)
    row = found.row(0)
    assert row is not None
    return list(row.tolist())


INF = math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logits", [[-5.0, 0.0, -1.0, -INF], [1.0, 3.0, 2.0, -INF], [-9.0, -1.0, -INF, -INF]])
def test_temperature(logits: list[float], dtype: torch.dtype) -> None:
    for t in SMALL:
        assert law(Temperature(t), logits, dtype=dtype) == [0, 1, 0, 0]
    for t in LARGE:
        allowed = [float(x > -INF) for x in logits]
        assert law(Temperature(t), logits, dtype=dtype) == pytest.approx([a / sum(allowed) for a in allowed], abs=1e-5)


def test_every_row_stays_its_own() -> None:
    logits = torch.tensor([[0.0, 3.0], [-INF, -INF], [5.0, 5.0]])
    found = Laws((Temperature(1e-300),), greedy=False)(Rows(logits, [0], [(), (1,), (0,)]))
    rows = [found.row(i) for i in range(3)]
    assert rows[1] is None
    assert [row.tolist() for row in rows if row is not None] == [[0, 1], [0.5, 0.5]]


def test_penalties() -> None:
    for p in SMALL[2:]:
        assert law(Repetition(p), [2.0, 1.0, 5.0]) == [1, 0, 0]
        assert law(Repetition(p), [-1.0, -2.0, -9.0]) == pytest.approx([0.5, 0.5, 0], abs=1e-3)
        assert law(Presence(p), [0.0, 0.0, 0.0]) == law(Frequency(p), [0.0, 0.0, 0.0]) == pytest.approx([1 / 3] * 3)
    for p in LARGE[1:]:
        assert law(Repetition(p), [2.0, 0.0, -3.0]) == pytest.approx([1 / (2 + math.exp(-3))] * 2 + [0.0243], abs=1e-3)
        assert law(Repetition(p), [-2.0, -1.0, -3.0]) == [0, 0, 1]
        assert law(Presence(p), [9.0, 9.0, 1.0]) == law(Frequency(p), [9.0, 9.0, 1.0]) == [0, 0, 1]
        assert law(Presence(-p), [1.0, 1.0, 9.0]) == law(Frequency(-p), [1.0, 1.0, 9.0]) == [0.5, 0.5, 0]


def test_classifier_free() -> None:
    p, n = [1.0, 2.0, 3.0, -INF], [1.0, 0.0, 3.0, 1.0]
    for scale in LARGE:
        assert law(ClassifierFree(scale), p, n) == [0, 1, 0, 0]
        assert law(ClassifierFree(scale), n, n) == pytest.approx(torch.tensor(n).softmax(-1).tolist(), abs=1e-3)
    for scale in SMALL:
        assert law(ClassifierFree(scale), n, [*p[:3], 0.0]) == pytest.approx(
            torch.tensor([1.0, 2.0, 3.0, 0.0]).softmax(-1).tolist(), abs=1e-3
        )


@pytest.mark.parametrize("kind", [TopP, MinP, TypicalP])
def test_shares(kind: Any) -> None:
    for share in (*SMALL, 1 - 1e-16):
        found = law(kind(share), [3.0, 1.0, -2.0, -INF])
        assert sum(found) == pytest.approx(1)
    far = [1e30, 0.0, -1e30, -INF]
    assert law(kind(0.5), far) == [1, 0, 0, 0]


@pytest.mark.parametrize("t", ["inf", "1e400", "-inf", "nan", "-1"])
def test_a_temperature_that_is_no_number_is_refused(t: str) -> None:
    with pytest.raises(DecoderyError, match="temperature"):
        part("guide", f"temperature:{t}")
