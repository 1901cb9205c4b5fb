"""The demo model where its answer repeats something: what drafters by copying and recycling promise there."""

from __future__ import annotations

from typing import Any

import pytest

import decodery
from decodery.draft.recycling import Recycling

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real")]

TEXT = """The water cycle describes how water moves on, above and below the surface of the Earth. Water evaporates from \
oceans, lakes and rivers, rises into the air and cools down. The cold air turns the vapor into tiny drops, which form \
clouds. When the drops become too heavy, they fall back to the ground as rain or snow. Some of the water flows into rivers \
and returns to the sea, some of it sinks into the soil and becomes groundwater. Plants take up a part of it through their \
roots and give it back to the air through their leaves."""


def test_copyspec_copies_a_text_that_is_to_be_repeated(smollm2: Any) -> None:
    """More than three tokens a call, for as long as the answer is the paragraph of the prompt."""
    wanted = smollm2.encode(TEXT)
    assert len(wanted) > 100
    ask = [{"role": "user", "content": f"Repeat this paragraph verbatim: {TEXT}"}]
    tokens: list[int] = []
    calls = 0
    for piece in decodery.stream(smollm2, ask, draft="copyspec", plan="off", max_new_tokens=60):
        if piece.step is not None:
            calls += 1
            tokens += piece.step.tokens
            if tokens != wanted[: len(tokens)]:
                break
    copied = next(n for n in range(len(tokens), -1, -1) if tokens[:n] == wanted[:n])
    assert copied > 40
    assert copied > 3 * calls


def test_recycling_starts_cold_and_gets_better(smollm2: Any) -> None:
    """An empty table changes no token; a second run over a repetitive answer takes fewer calls, above 1.5 tokens each."""
    ask = [{"role": "user", "content": "Count from one to fifty in digits, each followed by a comma."}]
    plain = decodery.decode(smollm2, ask, max_new_tokens=60)
    draft = Recycling(prompt=False)
    first, second = (decodery.decode(smollm2, ask, draft=draft, max_new_tokens=60, plan="off") for _ in range(2))
    assert first.tokens == second.tokens == plain.tokens
    assert second.stats.forwards < first.stats.forwards
    assert second.stats.tokens > 1.5 * second.stats.forwards
