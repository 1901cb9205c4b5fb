"""The examples run, and say what they should."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real")]
EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {"extraction": "Marie Curie", "tool_call": "Weather city='", "llama_cpp_grammar": "1. "}


@pytest.mark.parametrize("name", SAID)
def test_example(name: str, smollm2: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("decodery.load", lambda _: smollm2)
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert SAID[name] in capsys.readouterr().out
