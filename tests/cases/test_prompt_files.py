"""Prompt files are read as written: a line ends at a line feed, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decodery.bench.suites import tasks_of
from decodery.core.errors import DecoderyError

SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"]


def prompts(path: Path, data: str | bytes) -> list[str]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [task.turns[0] for task in tasks_of("prompts", path)]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_other_separators_are_part_of_a_prompt(separator: str, tmp_path: Path) -> None:
    told = [f"a{separator}b", "c"]
    lines = "".join(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in told)
    assert prompts(tmp_path / "p.jsonl", lines) == told
    assert prompts(tmp_path / "p.txt", "\n".join(told)) == told
    assert prompts(tmp_path / "p.txt", "\r\n".join(told) + "\r\n") == told


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    assert prompts(tmp_path / "p", '\ufeff{"prompt": "one"}\n') == ["one"]
    assert prompts(tmp_path / "p", "\ufeffone\n") == ["one"]
    assert prompts(tmp_path / "p", "one\n\ufefftwo") == ["one", "\ufefftwo"]


def test_spaces_stay_and_empty_lines_go(tmp_path: Path) -> None:
    assert prompts(tmp_path / "p", "  one \n\n \t\n\ttwo\n") == ["  one ", "\ttwo"]


@pytest.mark.parametrize("data", [b"\xff\xfe", "ä".encode("latin-1"), "one".encode("utf-16"), b'{"prompt": \n'])
def test_what_is_no_text_is_a_sentence(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DecoderyError, match="p"):
        prompts(tmp_path / "p", data)
