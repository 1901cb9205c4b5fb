"""Every option of every command refuses a bad value with a sentence that names it; a new option is covered by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from decodery.cli import app

from ..units.test_cli import tiny  # noqa: F401
from .test_command_line import call

TOP: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS: dict[str, Any] = {
    f"{group} {name}".strip(): command
    for group, top in TOP.items()
    for name, command in getattr(top, "commands", {"": top}).items()
}

CALLS = {
    "run": ["w5"],
    "chat": [],
    "compare": ["w5"],
    "profile": ["w5"],
    "doctor": [],
    "bench": ["prompts", "PROMPTS"],
    "report": ["FOLDER"],
    "data list": [],
    "data get": ["gsm8k"],
    "sweep": ["--lengths", "10", "--batches", "1", "--rounds", "1"],
    "index": ["PROMPTS", "-o", "NEW/store"],
    "fit-tree": ["PROMPTS", "-o", "NEW/tree.json"],
    "list": [],
    "show": ["ngram"],
    "laws": ["ngram"],
}
"""What each command needs beside the option."""

UNKNOWN = ["", "nonsense", "nonsense:x=1"]
NUMBER = ["many", "-7", "nan"]
BAD: dict[str, list[str]] = {
    **dict.fromkeys(("draft", "verify", "guide", "constrain", "search", "change", "methods"), UNKNOWN[1:]),
    **dict.fromkeys(
        ("max_new_tokens", "seed", "limit", "repeat", "rounds", "nodes", "threads", "ctx_size", "top_k"), NUMBER
    ),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repeat_penalty", "time_limit"), NUMBER),
    "model": ["/nowhere", "", "FILE"],
    "backend": ["nonsense"],
    "device": ["nonsense", "cuda:77"],
    "dtype": ["nonsense", "int8"],
    "revision": ["main"],  # of a model on this disk
    "plan": ["nonsense", "fixed:x", "fixed:-1"],
    "stop": [""],
    "system": ["\udcff"],
    "text": ["w5"],  # beside the prompt
    "file": ["/nowhere", "FOLDER"],
    "recipe": ["/nowhere", "FOLDER"],
    "memory": ["/nowhere/memory", "FOLDER"],
    "trace": ["/nowhere/page.html", "FOLDER"],
    "report": ["FILE"],
    "output": ["FILE/under"],
    "widest": ["nonsense"],
    "peers": ["nonsense"],
    "lengths": ["many", "0"],
    "batches": ["many", "-1"],
    "origin": ["/nowhere"],
    "json_schema": ["/nowhere.json", "FILE", "FOLDER"],
    "grammar": ["/nowhere.gbnf", "FILE"],
    "regex": ["(", "(?=a)", ""],
    "choice": [""],
}
"""For each option values that it must refuse; ``FILE`` and ``FOLDER`` are there, ``/nowhere`` is not."""


def cases() -> Iterator[tuple[str, Any, str]]:
    for name, command in COMMANDS.items():
        for param in command.params:
            if param.param_type_name == "option" and param.name != "help" and not param.is_flag:
                yield from ((name, param, value) for value in BAD.get(param.name, ["?"]))


@pytest.fixture(scope="module")
def places(tmp_path_factory: Any) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("bad")
    (folder / "prompts.txt").write_text("w5 w6\n")
    (folder / "file").write_text("w5")
    (folder / "folder").mkdir()
    (folder / "new").mkdir()
    found = {"PROMPTS": "prompts.txt", "FILE": "file", "FOLDER": "folder", "NEW": "new"}
    return {word: str(folder / name) for word, name in found.items()}


def filled(word: str, places: dict[str, str]) -> str:
    return re.sub("PROMPTS|FILE|FOLDER|NEW", lambda found: places[found[0]], word)


def plain(text: str) -> str:
    """A message without the box around it, in one line."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def test_every_command_has_a_call() -> None:
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "param", "value"), list(cases()), ids=lambda x: getattr(x, "name", ascii(x).strip("'"))
)
def test_a_bad_value_is_refused_by_name(
    name: str,
    param: Any,
    value: str,
    tiny: str,  # noqa: F811
    places: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert value != "?", f"say in BAD which values --{param.name} must refuse"
    monkeypatch.chdir(places["NEW"])
    monkeypatch.setenv("DECODERY_THREADS", "")  # what a command sets goes with the test
    words = [filled(word, places) for word in CALLS[name]]
    option = max(param.opts, key=len)
    model = ["-m", tiny] if "model" in {p.name for p in COMMANDS[name].params} and param.name != "model" else []
    result = call(*name.split(), *words, *model, option, filled(value, places), input="w5\n")
    told = plain(result.stderr)
    assert result.exit_code == 2, (told, result.stdout, result.exception)
    assert told.startswith(("error: ", "Usage: "))
    named = [one.strip("-").replace("_", "-") for one in [param.name, *param.opts] if len(one) > 2]
    assert any(one in told.replace("_", "-").replace(" ", "-") for one in named), told


@pytest.mark.parametrize("value", ["/nowhere", "FOLDER"])
def test_the_config_file_is_an_option_too(value: str, places: dict[str, str]) -> None:
    result = call("--config", filled(value, places), "list")
    assert result.exit_code == 2
    assert "no such config file" in plain(result.stderr)
