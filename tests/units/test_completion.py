"""What the shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decodery.cli import completion

CODE = """
import sys
from decodery.cli import app
try:
    app(prog_name="decodery")
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("role", "typed", "found"),
    [
        ("draft", "ngr", ["ngram"]),
        ("draft", "ngram:", ["ngram:max=", "ngram:min=", "ngram:length=", "ngram:width="]),
        ("draft", "ngram:m", ["ngram:max=", "ngram:min="]),
        ("draft", "ngram:max=4,", ["ngram:max=4,min=", "ngram:max=4,length=", "ngram:max=4,width="]),
        ("draft", "ngram:max=4,w", ["ngram:max=4,width="]),
        ("draft", "ngram:max=", []),
        ("draft", "nothing:", []),
        ("draft", "top-p", []),
        ("guide", "top-", ["top-k", "top-p"]),
        ("change", "int", ["int4", "int8"]),
    ],
)
def test_specs(role: str, typed: str, found: list[str]) -> None:
    assert sorted(completion.specs(role)(typed)) == sorted(found)


def test_parts_and_roles() -> None:
    assert completion.parts("guide/top-") == ["guide/top-k", "guide/top-p"]
    assert "ngram" in completion.parts("")
    assert completion.roles("ver") == ["verify"]


def test_models(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "config.json").write_text("{}")
    (tmp_path / "models" / "notes.txt").write_text("")
    (tmp_path / "small.gguf").write_text("")
    (tmp_path / ".hidden").mkdir()
    monkeypatch.chdir(tmp_path)
    assert completion.models("") == ["smollm2", "models/", "small.gguf"]
    assert completion.models("sm") == ["smollm2", "small.gguf"]
    assert completion.models("models/") == ["models/small"]
    assert completion.models(f"{tmp_path}/mo") == [f"{tmp_path}/models/"]
    assert completion.models("nowhere/") == []


def test_the_shell_is_answered_without_torch() -> None:
    """As zsh asks, through the command itself; a name is completed before torch could be imported."""
    asked = {"_DECODERY_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "decodery run --draft ngr"}
    code = CODE
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
    assert "ngram" in done.stdout
    assert done.stderr.strip() == "False"
