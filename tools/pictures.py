"""Takes the pictures of ``docs/images`` anew: ``python tools/pictures.py``. Needs tmux, chromium and the demo model.

The chat is a real session in a terminal, which tmux keeps; the pages are shown by a browser without a window. Look at each
picture before you commit it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
REPORT = ROOT / "benchmarks" / "results" / "2026-11-28-epyc-2core" / "peers" / "report.html"
COLUMNS, LINES = 116, 32

SAID = (
    "Name three colours.",
    "/set temperature 0.7",
    "/show",
    "Which of them do you like best? Answer in one sentence.",
)
"""What is typed in the chat."""

WAIT = 25.0
"""Seconds at most until an answer has ended."""

NARROW = 500
"""Pixels: no window of chromium is narrower."""


def main() -> None:
    """Take all pictures."""
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "chat.svg").write_text(chat())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "trace.html"
        words = "Correct the spelling and repeat the whole text: The quik brown fox jumps over the lazy dog. The dog sleeps."
        run = [sys.executable, "-m", "decodery", "run", words, "-n", "48", "--plan", "fixed:8", "--trace", str(page)]
        subprocess.run(run, check=True, cwd=ROOT)
        shoot(page, "trace", 1000, 1000)
    shoot(REPORT, "bench-light", 1000, 900)
    shoot(REPORT, "bench-dark", 1000, 900, dark=True)
    shoot(REPORT, "bench-phone", 390, 1000)


def chat() -> str:
    """A conversation in a terminal, as SVG."""
    name = f"decodery-{os.getpid()}"
    program = f"{shlex.quote(sys.executable)} -m decodery chat -n 80 --seed 1"
    with tempfile.TemporaryDirectory() as home:  # no history of whoever takes the picture
        begin = [
            "new-session",
            "-d",
            "-s",
            name,
            "-x",
            str(COLUMNS),
            "-y",
            str(LINES),
            "-e",
            f"XDG_STATE_HOME={home}",
            program,
        ]
        tmux(*begin)
        try:
            _until(name)
            for words in SAID:
                tmux("send-keys", "-t", name, "-l", words)
                tmux("send-keys", "-t", name, "Enter")
                time.sleep(1)
                _until(name)
            shown = tmux("capture-pane", "-e", "-p", "-t", name)
        finally:
            tmux("kill-session", "-t", name)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(shown.rstrip("\n")))
    drawn = console.export_svg(title="decodery chat", theme=MONOKAI)
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # fonts from elsewhere: a viewer has its own


def _until(name: str) -> None:
    """Wait until the last line shown is a prompt with nothing behind it."""
    stop = time.monotonic() + WAIT
    while time.monotonic() < stop:
        if tmux("capture-pane", "-p", "-t", name).rstrip().endswith("\n>"):
            return
        time.sleep(0.2)


def tmux(*words: str) -> str:
    """What tmux answers."""
    return subprocess.run(["tmux", *words], check=True, capture_output=True, text=True).stdout


def shoot(page: Path, name: str, width: int, height: int, dark: bool = False) -> None:
    """A picture of a page; one that is narrower than any window is shown in a frame."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        size = f'width="{width}" height="{height}"'
        frame.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" {size} style="border:0"></iframe>')
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
        ]
        options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--screenshot={IMAGES / name}.png"]
        shown = frame if width < NARROW else page
        subprocess.run(["chromium", *options, shown.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main()
