"""Chat on a terminal: every command, history, pasted texts, interrupts, and whatever bytes come."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from decodery.cli.markdown import Rendered, split
from decodery.run.output import Piece

from ..cases.text_common import byte_level
from ..cases.text_common import network as byte_network
from .test_cli import tiny  # noqa: F401

PATIENCE = 60.0


class Terminal:
    """A child process with a terminal of its own, and what it has shown."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, text: str) -> str:
        """What is shown until ``text`` comes."""
        end, start = time.monotonic() + PATIENCE, len(self.seen)
        while text not in self.seen[start:]:
            assert time.monotonic() < end, f"{text!r} did not come; the last was {self.seen[-800:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        return self.seen[start:]

    def ready(self) -> None:
        """Wait until a line is edited: what is typed before is echoed, and edited, by the system."""
        end = time.monotonic() + PATIENCE
        while self.seen.rfind("\x1b[?2004h") <= self.seen.rfind("\x1b[?2004l"):
            assert time.monotonic() < end, f"no prompt came; the last was {self.seen[-800:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")

    def send(self, data: str | bytes, text: str) -> str:
        self.ready()
        os.write(self.master, data if isinstance(data, bytes) else data.encode())
        return self.wait(text)


@contextmanager
def chatting(model: str, home: Path, *options: str) -> Iterator[Terminal]:
    environment = os.environ | {"XDG_STATE_HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    terminal = Terminal([sys.executable, "-m", "decodery", "chat", "-m", model, "-n", "5", *options], environment)
    try:
        terminal.wait("> ")
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def test_a_conversation_on_a_terminal(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    saved, other = tmp_path / "talk.json", tmp_path / "other.json"
    other.write_text(
        json.dumps({"messages": [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]})
    )
    with chatting(tiny, tmp_path) as terminal:
        assert "from the cache" in terminal.send("w5 w9\r", "from the cache")
        for line, shown in (
            ("/help", "ends with"),
            ("/show", "tokens in the cache"),
            ("/draft jacobi", "jacobi"),
            ("/guide top-k:3", "top-k"),
            ("/guide logit-bias", "logit-bias"),
            ("/guide none", "{'draft'"),
            ("/set temperature 0.7", "temperature"),
            ("/set temperature 0.9", "'t': 0.9"),
            ("/set max-tokens 4", "> "),
            ("/set max-tokens none", "takes a whole number"),
            ("/set seed 3", "> "),
            ("/set show-draft maybe", "takes on or off"),
            ("/set raw on", "> "),
            ("/set raw perhaps", "/set raw takes on or off"),
            ("/set", "takes a name and a value"),
            ("/set nonsense 3", "nonsense"),
            ("/retry", "from the cache"),
            ("/edit w7 w8", "from the cache"),
            ("/stats", "tokens/forward"),
            ("/copy", "\x1b]52;c;"),
            (f"/save {saved}", "saved 2 messages"),
            ("/save", "needs a file name"),
            ("/save /nowhere/at/all", "not saved"),
            ("/undo", "> "),
            ("/undo", "there is no message yet"),
            ("/retry", "there is no message yet"),
            (f"/load {saved}", "2 messages from"),
            (f"/load {other}", "2 messages from"),
            ("/load /nowhere", "/nowhere"),
            (f"/load {sys.executable}", "is not text in UTF-8"),
            ("/system be brief", "> "),
            ("/sytem", "Did you mean '/system'?"),
            ("/reset", "> "),
        ):
            terminal.send(f"{line}\r", shown)
        assert json.loads(saved.read_text())[0]["content"] == "w7 w8"
        terminal.send("/bye\r", "")
        assert terminal.process.wait(PATIENCE) == 0


def test_what_a_terminal_sends(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """A pasted text is one message, bytes that are no UTF-8 are told, keys edit, the window changes its size."""
    saved = tmp_path / "talk.json"
    with chatting(tiny, tmp_path) as terminal:
        terminal.send("\x1b[200~w5\nw6\nw7\x1b[201~\r", "from the cache")
        terminal.send(b"w\xe9\xff\r", "is not text in UTF-8")
        terminal.resize(10, 40)
        terminal.send("w9 é日本", "本")
        for _ in range(3):
            os.write(terminal.master, b"\x7f")
            time.sleep(0.3)
        terminal.send("\r", "from the cache")
        terminal.send('"""w1\r', "... ")
        terminal.send('w2"""\r', "from the cache")
        terminal.send("\x03", "> ")
        terminal.send("nothing\x03", "> ")
        terminal.send(f"/save {saved}\r", "saved 6 messages")
        terminal.send("\x04", "")
        assert terminal.process.wait(PATIENCE) == 0
    messages = [message["content"] for message in json.loads(saved.read_text())]
    assert messages[::2] == ["w5\nw6\nw7", "w9", "w1\nw2"]


def test_history_goes_on_in_the_next_session(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    for n, keys in enumerate(("w5 w11\r", "\x1b[A\r")):
        with chatting(tiny, tmp_path) as terminal:
            terminal.send(keys, "from the cache")
            terminal.send(f"/save {tmp_path / f'{n}.json'}\r", "saved 2 messages")
            terminal.send("/exit\r", "")
            assert terminal.process.wait(PATIENCE) == 0
        if n == 0:  # the last line of the history is a command: what is found is the one before it
            (history,) = tmp_path.glob("**/history")
            kept = history.read_text()
            assert "w5 w11" in kept
            history.write_text(kept[: kept.index("/save") - 1].rpartition("\n#")[0] + "\n")
    assert json.loads((tmp_path / "1.json").read_text())[0]["content"] == "w5 w11"


def test_what_fails_leaves_the_conversation_as_it_was(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """An edited message that does not fit, an edit that is broken off, a plan that is none."""
    saved = tmp_path / "talk.json"
    with chatting(tiny, tmp_path, "-d", "none") as terminal:
        terminal.send("w5 w9\r", "from the cache")
        terminal.send("/edit " + "w3 " * 120 + "\r", "the model's context is 96")
        terminal.send("/edit\r", "w5")
        terminal.send("\x03", "> ")
        terminal.send("/set plan sometimes\r", "plan is auto, fixed:N")
        terminal.send(f"/save {saved}\r", "saved 2 messages")
        terminal.send("/retry\r", "from the cache")
    assert json.loads(saved.read_text())[0]["content"] == "w5 w9"


def test_lines_from_a_pipe(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """No terminal: lines are read as they are, and bad ones are told."""
    command = [sys.executable, "-m", "decodery", "chat", "-m", tiny, "-n", "3", "--quiet"]
    given = b"w5\n\xff\xfe\n/copy\n\n" + f"/save {tmp_path / 'talk.json'}\n".encode()
    shown: Any = subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE)
    assert shown.returncode == 0, shown.stderr
    assert b"is not text in UTF-8" in shown.stdout
    assert b"there is no terminal" in shown.stdout
    assert len(json.loads((tmp_path / "talk.json").read_text())) == 2


MARKDOWN = "# Title\n\n* one\n* **two** <b>\n\n```python\nx = 1\n\n\ny = 2\n```\nline\nline"


@pytest.fixture(scope="module")
def writer(tmp_path_factory: Any) -> str:
    """A model that can be made to write anything."""
    folder, words = tmp_path_factory.mktemp("writer"), byte_level()
    words.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    byte_network(len(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("options", [(), ("--raw",), ("--show-draft",)])
def test_markdown_is_rendered_on_a_terminal(options: tuple[str, ...], writer: str, tmp_path: Path) -> None:
    """What is kept is the text as the model wrote it."""
    saved = tmp_path / "talk.json"
    written = "regex:" + "".join(f"\\{c}" if c == "*" else c for c in MARKDOWN)
    with chatting(writer, tmp_path, "-n", "200", "--constrain", written, *options) as terminal:
        shown = terminal.send("hi\r", "from the cache")
        terminal.send(f"/save {saved}\r", "saved 2 messages")
        terminal.send("/bye\r", "")
    assert json.loads(saved.read_text())[1]["content"] == MARKDOWN
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "")
    assert ("# Title" in plain) == bool(options)
    assert ("**two**" in plain) == bool(options)
    assert "<b>" in plain
    if not options:
        assert " • two <b>" in plain
        assert "```" not in plain
        assert "line\nline" in "\n".join(line.strip() for line in plain.splitlines())


def test_blocks_end_with_a_blank_line_outside_of_code() -> None:
    assert split("") == ([], "")
    assert split("a\nb") == ([], "a\nb")
    assert split("a\n\nb\n\n\nc") == (["a", "b"], "c")
    assert split("```\na\n\nb\n```\n\nc") == (["```\na\n\nb\n```"], "c")
    assert split("```\na\n~~~\n\nb") == ([], "```\na\n~~~\n\nb")
    found = []
    for end in range(len(MARKDOWN) + 1):  # however it comes, the blocks are the same
        found = split(MARKDOWN[:end])[0]
    assert found == split(MARKDOWN)[0]


def test_a_block_that_grows_is_drawn_and_then_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decodery.cli.markdown.PERIOD", 0.0)
    screen = io.StringIO()
    with Rendered(Console(file=screen, force_terminal=True, width=40, color_system=None)) as show:
        for text in ("so", "me ", "**bo", "ld**", "\n", "\nmo", "re"):
            show(Piece(text, None))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "|", screen.getvalue())
    last = plain.rpartition("||")[2] if "||" in plain else plain
    assert "more" in last
    assert screen.getvalue().count("\x1b[2K") >= 2, "what was drawn is taken away"


if sys.platform == "win32":
    pytest.skip("Windows has no pseudo terminals of this kind", allow_module_level=True)
