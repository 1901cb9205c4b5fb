"""The demo model where its answer repeats something: what drafters by copying and recycling promise there."""

from __future__ import annotations

from typing import Any

import pytest

import decodery
from decodery.draft.recycling import Recycling

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real")]

TEXT = """The lighthouse keeper climbed the narrow stairs every evening before the sun went down. He carried a small can of \
oil, a clean rag and a notebook in which he wrote the names of the ships that passed. On some nights there were none, and \
he wrote about the weather instead. When the new electric lamp arrived, the company told him that he was no longer needed, \
but he stayed in the village and walked up the hill each night to see whether the light was burning. Children asked him why."""


def test_copyspec_copies_a_text_that_is_to_be_repeated(smollm2: Any) -> None:
    """Where the answer is the paragraph of the prompt: more than three tokens a call, and the text of plain decoding."""
    ask = [{"role": "user", "content": f"Repeat this paragraph verbatim: {TEXT}"}]
    output = decodery.decode(smollm2, ask, draft="copyspec", max_new_tokens=90)
    tokens = smollm2.encode(TEXT)
    copied = next(
        (n for n, (a, b) in enumerate(zip(output.tokens, tokens, strict=False)) if a != b), len(output.tokens)
    )
    print(f"{copied} tokens copied, {output.stats.tokens} tokens in {output.stats.forwards} calls")
    assert len(tokens) > 100
    assert copied > 60
    assert output.stats.tokens > 3 * output.stats.forwards


def test_recycling_starts_cold_and_gets_better(smollm2: Any) -> None:
    """An empty table changes no token; a second run over a repetitive answer takes fewer calls, above 1.5 tokens each."""
    ask = [{"role": "user", "content": "Count from one to fifty in digits, each followed by a comma."}]
    plain = decodery.decode(smollm2, ask, max_new_tokens=60)
    draft = Recycling(prompt=False)
    first, second = (decodery.decode(smollm2, ask, draft=draft, max_new_tokens=60) for _ in range(2))
    assert first.tokens == second.tokens == plain.tokens
    print([round(o.stats.tokens / o.stats.forwards, 2) for o in (first, second)])
    assert second.stats.forwards < first.stats.forwards
    assert second.stats.tokens > 1.5 * second.stats.forwards
