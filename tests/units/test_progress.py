"""What is shown while a user waits: on a terminal, on standard error, from a second on; nothing of it in pipes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import decodery
from decodery.cli import progress
from decodery.core.errors import DecoderyError

from ..hf.test_decode import tokenizer
from ..hf.tiny import network
from .test_chat import Terminal
from .test_cli import call, tiny  # noqa: F401

PROMPT = [(i * 7) % 50 + 3 for i in range(60)]


def model() -> Any:
    return decodery.load((network("llama"), tokenizer()))


def test_a_long_prompt_tells_how_far_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decodery.model.turn.CHUNK", 16)
    told: list[tuple[int, int]] = []
    loaded, session = model(), None
    plain = decodery.decode(loaded, PROMPT, max_new_tokens=5).tokens
    session = loaded.session()
    options: Any = {"max_new_tokens": 5, "progress": lambda *figures: told.append(figures), "session": session}
    assert decodery.decode(loaded, PROMPT, **options).tokens == plain
    assert told == [(0, 60), (16, 60), (32, 60), (48, 60), (60, 60)]
    told.clear()
    decodery.decode(loaded, [*PROMPT, 5, 6], **options)
    assert told[0] == (60, 62), "what the session holds is read already"
    assert told[-1] == (62, 62)
    told.clear()
    both = {"max_new_tokens": 5, "progress": options["progress"]}
    decodery.decode(loaded, [PROMPT, PROMPT[:20]], **both)
    assert told[0] == (0, 80)
    assert told[-1] == (80, 80)


def test_progress_is_a_function() -> None:
    with pytest.raises(DecoderyError, match="progress= is a function"):
        decodery.decode(model(), PROMPT, progress=True)  # type: ignore[call-overload]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    found = io.StringIO()
    monkeypatch.setattr(progress, "err", Console(file=found, force_terminal=True, width=90))
    return found


def test_a_bar_where_reading_takes_long(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    with progress.Reading() as reading:
        for read, at in ((0, 0.0), (384, 0.01), (768, 0.02), (1000, 0.03)):
            clock[0] = at
            reading(read, 1000)
        assert not screen.getvalue()
        for read, at in ((0, 1.0), (384, 1.5), (768, 2.0)):
            clock[0] = at
            reading(read, 1000)
        assert "384/1000" in screen.getvalue()
        reading(1000, 1000)
        assert screen.getvalue().endswith("\x1b[2K"), "the bar is gone before the answer comes"
    with progress.Reading(quiet=True) as reading:
        before = screen.getvalue()
        for read, at in ((0, 3.0), (384, 9.0), (1000, 12.0)):
            clock[0] = at
            reading(read, 1000)
        assert screen.getvalue() == before


def test_a_line_where_loading_takes_long(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.2)
    with progress.waiting("loading [x]"):
        pass
    time.sleep(0.3)
    assert not screen.getvalue()
    with progress.waiting("loading [x]"):
        time.sleep(0.5)
    assert "loading [x] ..." in screen.getvalue()
    with pytest.raises(DecoderyError), progress.waiting("loading"):
        raise DecoderyError("no")


def test_nothing_of_it_in_pipes(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    result = call("run", "w5 " * 60, "-m", tiny, "-n", "2")
    assert "loading" not in result.output
    assert "reading" not in result.output


def test_what_a_terminal_shows(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """A real terminal: the line while the model is loaded, the bar of a long prompt, and then the answer alone."""
    code = (
        "from decodery.cli import progress; progress.PATIENCE = 0.0; import decodery.model.turn as t; t.CHUNK = 8;"
        "from decodery.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "run", "w5 " * 60, "-m", tiny, "-n", "2"]
    terminal = Terminal(command, os.environ | {"TERM": "xterm"})
    try:
        assert "loading" in terminal.wait("loading")
        assert "reading the prompt" in terminal.wait("tokens/forward")
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def test_starting_does_not_import_what_only_waiting_needs() -> None:
    code = "import sys, decodery.cli; print([m for m in ('rich.progress', 'rich.status', 'torch') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
