"""The pages for users: every line of their blocks is run, every message is one of the code, every figure is a committed one."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import decodery

from .test_cli import call, tiny  # noqa: F401

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("from-*.md")), DOCS / "choosing-a-drafter.md", DOCS / "troubleshooting.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


COMMANDS = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]


def test_there_are_pages() -> None:
    assert len(PAGES) == 5
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


def sentences() -> list[str]:
    """Each text of the source, what is filled in left out as ``\0``."""
    found = []
    for path in Path(decodery.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


MESSAGES = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


def test_every_message_of_the_troubleshooting_page_is_one_of_the_code() -> None:
    assert len(MESSAGES) >= 15
    texts = sentences()
    for message in MESSAGES:
        parts = [part.strip() for part in message.split("...") if part.strip()]
        assert len("".join(parts)) > 12, f"this fits too much: {message}"
        pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
        assert any(pattern.search(text) for text in texts), f"no message of the code: {message}"


def test_figures_on_choosing_a_drafter_are_those_of_the_results_it_names() -> None:
    """Numbers in its tables stand in the tables of the folders named on the page; ratios made of two of them are right."""
    page = (DOCS / "choosing-a-drafter.md").read_text()
    folders = [ROOT / name for name in dict.fromkeys(re.findall(r"`(benchmarks/results/[\w./-]+)`", page))]
    assert len(folders) >= 5
    known: set[str] = set()
    for folder in folders:
        files = [folder / name for name in ("summary.md", "sweep.md") if (folder / name).is_file()]
        assert files, f"{folder} holds no results"
        known |= {number for file in files for number in re.findall(r"\d+\.\d+", file.read_text())}
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    checked = 0
    for label, *cells in rows:
        if "x plain" in label:
            same = {row[0].strip(): row[1:] for row in rows if len(row) == len(cells) + 1}
            plain, auto = same["plain"], same["`auto`"]
            assert [f"{float(a) / float(p):.2f}" for p, a in zip(plain, auto, strict=True)] == [
                cell.strip() for cell in cells
            ]
            continue
        numbers = [cell.strip() for cell in cells if re.fullmatch(r"\s*\d+\.\d+\s*", cell)]
        assert set(numbers) <= known, f"in none of the results: {sorted(set(numbers) - known)} ({label.strip()})"
        checked += len(numbers)
    assert checked > 50
