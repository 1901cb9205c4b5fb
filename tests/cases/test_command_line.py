"""The command line: what it prints is the answer, and what a user can mend ends in a sentence and exit code 2."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decodery.cli import answer, app, common
from decodery.core.codec import Text
from decodery.core.errors import BadPrompt
from decodery.run.output import Piece

from .text_common import byte_level, network

TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    "{% for m in messages %}<turn>{{ m['content'] }}{% endfor %}<turn>"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("bytes")
    tok = byte_level()
    tok.chat_template = TEMPLATE
    network(len(tok)).save_pretrained(path)
    tok.save_pretrained(path)
    (path / "broken.yaml").write_text("draft: [")
    (path / "deep.yaml").write_text("[" * 3000)
    (path / "control.yaml").write_bytes(b"draft: \x01")
    (path / "binary.yaml").write_bytes(b"\xff\xfe")
    (path / "list.yaml").write_text("- draft")
    (path / "number.yaml").write_text("1: 2")
    (path / "nested.yaml").write_text("draft: {ngram: {max: 4}}")
    return path


def call(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, list(arguments), **options)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"all:\tcc", "all:\tcc"),
        (r"a\r\nb", "a\r\nb"),
        (r"a\rb\n\n", "a\rb\n\n"),
        (r"a\x0cb\x0b\x07\x08", "a\x0cb\x0b\x07\x08"),
        (r"\[bold\]x\[/bold\] :smile:", "[bold]x[/bold] :smile:"),
        (r"\x1b\[31mx", "\x1b[31mx"),
        (r"x{200} y", "x" * 200 + " y"),
        (" +é\u2028—🙂 ", None),
    ],
)
def test_what_is_printed_is_the_answer(folder: Path, pattern: str, text: str | None) -> None:
    common_ = ("run", "x", "-m", str(folder), "--raw", "-n", "300", "--constrain", f"regex:{pattern}")
    told = json.loads(call(*common_, "--json").stdout)["text"]
    assert text in (told, None)
    for more in ((), ("--show-draft", "-d", "ngram")):
        assert call(*common_, "-q", *more).stdout_bytes.decode() == told + "\n"


def test_colours_come_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, wanted in ((True, "\x1b[32m\ta\x1b[0m\r\x0c"), (False, "\ta\r\x0c")):
        screen = io.StringIO()
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setattr(common.out, "_force_terminal", terminal)
        monkeypatch.setattr(common.out, "no_color", False)
        answer._show(Piece("\ta\r\x0c", None, drafted=2), show_draft=True)
        assert screen.getvalue() == wanted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "hi", "--system", "be brief"], "no system role here"),
        (["run", "\udcff\udcfe", "--raw"], "no valid Unicode"),
        (["run", "a\udcff"], "no valid Unicode"),
        (["run", "hi", "--constrain", "regex:\udcff"], "unicode"),
        (["run", "hi", "-t", "nan"], "temperature"),
        (["run", "hi", "-t", "inf"], "temperature"),
        (["run", "hi", "--constrain", "regex:(?=a)b"], "look-around, including look-ahead"),
        (["run", "hi", "--constrain", "regex:(a"], "unclosed group"),
        *[(["run", "hi", "--recipe", f"{name}.yaml"], "") for name in ("broken", "binary", "control", "list", "deep")],
        (["run", "hi", "--recipe", "number.yaml"], ""),
        (["compare", "\udcff", "--raw"], "no valid Unicode"),
        (["profile", "\udcff", "--raw"], "no valid Unicode"),
    ],
)
def test_a_sentence(folder: Path, arguments: list[str], said: str) -> None:
    words = [str(folder / word) if word.endswith(".yaml") else word for word in arguments]
    result = call(*words, "-m", str(folder), "-n", "3")
    assert result.exit_code == 2, result.exception
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


@pytest.mark.parametrize("name", ["broken", "binary", "control", "list", "number", "nested", "deep", "missing"])
def test_a_config_file_that_cannot_be_used(folder: Path, name: str) -> None:
    result = call("--config", str(folder / f"{name}.yaml"), "run", "hi", "-m", str(folder), "-n", "3")
    assert result.exit_code == 2, result.exception
    assert result.stderr.startswith("error: ")
    assert f"{name}.yaml" in result.stderr


def test_a_config_file_is_read_as_the_command_line_is(folder: Path) -> None:
    config = folder / "config.yaml"
    config.write_text(
        f"model: {folder}\nguide: temperature:0.50\nmax_new_tokens: 3\nverify:\nconstrain: choice:[1.10,no]"
    )
    told = json.loads(call("--config", str(config), "run", "hi", "--raw", "--json").stdout)
    assert told["recipe"]["guide"] == [{"temperature": {"t": 0.5}}]
    assert len(told["tokens"]) <= 3


@pytest.mark.parametrize("command", ["run", "compare", "profile"])
def test_standard_input(folder: Path, command: str) -> None:
    result = call(command, "-", "-m", str(folder), "--raw", "-n", "3", input=b"\xff\xfe")
    assert result.exit_code == 2
    assert "standard input is not text in UTF-8" in result.stderr


def test_standard_input_is_taken_as_it_is(folder: Path) -> None:
    options = ("-m", str(folder), "--raw", "-n", "3", "--json")
    crlf = json.loads(call("run", "-", *options, input=b"a\r\n").stdout)["stats"]
    assert crlf["prompt_tokens"] == 3


def test_an_output_that_cannot_show_the_answer(folder: Path) -> None:
    arguments = ["run", "hi", "-m", str(folder), "-n", "3", "--constrain", "regex:é"]
    result = CliRunner(charset="ascii").invoke(app, arguments)
    assert result.exit_code == 2
    assert "PYTHONIOENCODING" in result.stderr


def test_a_reader_that_has_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(answer, "tell", full)
    result = call("run", "hi", "-m", str(folder), "-n", "3")
    assert result.exit_code == 1
    assert not result.stderr


def test_chat_goes_on_where_the_template_refuses(folder: Path) -> None:
    result = call("chat", "-m", str(folder), "-n", "3", "--system", "be brief", input="hi\n/system\nho\n/quit\n")
    assert result.exit_code == 0
    assert "no system role here" in result.stdout
    assert "tokens/forward" in result.stdout


def test_templates_may_fail_in_any_way() -> None:
    tok = byte_level()
    for template in (
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{{ messages + 1 }}",
        "{% if %}",
        "{{ raise_exception('x') }}",
    ):
        tok.chat_template = template
        with pytest.raises(BadPrompt, match="chat template refuses"):
            Text(tok, len(tok)).chat([{"role": "user", "content": "x"}])
