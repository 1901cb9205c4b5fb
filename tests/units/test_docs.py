"""The pages for those who come from elsewhere: every line of their blocks is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import decodery

from .test_cli import call, tiny  # noqa: F401

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("from-*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


COMMANDS = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]


def test_there_are_pages() -> None:
    assert len(PAGES) == 3
    assert len(COMMANDS) > 5
    assert all(blocks(page, "bash") or blocks(page, "python") for page in PAGES)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page(command: str, tiny: str, monkeypatch: Any) -> None:  # noqa: F811
    words = shlex.split(command)
    assert words[0] == "decodery"
    monkeypatch.setenv("DECODERY_MODEL", tiny)
    monkeypatch.setenv("DECODERY_THREADS", "2")  # what a command sets goes with the test
    monkeypatch.setattr(
        "torch.set_num_threads", lambda _: None
    )  # a pool of threads would not survive later tests' forks
    shown = call(*words[1:])
    assert shown.output


@pytest.mark.real
@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_the_python_of_a_page(page: Path, smollm2: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(decodery, "load", lambda *_, **__: smollm2, raising=False)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})
