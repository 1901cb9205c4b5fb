"""Options are typed: what is wrong is found by a type checker, before anything runs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import decodery

RIGHT = """
import decodery
from decodery import Output, Stream

model = decodery.load("smollm2", backend="torch", change=["int8"])
one: Output = decodery.decode(model, "Hello", max_new_tokens=4, draft="ngram", guide=["temperature:0.7"], stop=["a", 3])
several = decodery.decode(model, ["a", "b"], n=2, sampling="model", seed=3, logprobs=2, plan="off")
messages = [{"role": "user", "content": "Hello"}]


def weather(place: str) -> str:
    return place


talk = decodery.decode(model, messages, tools=[weather, {"type": "function"}], documents=[{"text": "x"}],
                       continue_final_message=True, template={"enable_thinking": False})
pieces: Stream = decodery.stream(model, messages, time_limit=2.5, progress=lambda read, total: print(read, total))
number: float = decodery.score(model, messages, "yes", tools=[weather]).logprob
speed: float = decodery.compare(model, "Hello", ["ngram", "suffix"], rounds=3, max_new_tokens=8)[1].speedup
"""

WRONG = [
    'decodery.decode(model, "Hello", max_tokens=4)',
    'decodery.decode(model, "Hello", max_new_tokens="four")',
    'decodery.decode(model, "Hello", stop=2.5)',
    'decodery.decode(model, "Hello", sampling="greedy")',
    'decodery.decode(model, "Hello", tools="weather")',
    'decodery.decode(model, "Hello", documents=["text"])',
    'decodery.decode(model, "Hello", template=3)',
    'decodery.stream(model, "Hello", seed="1")',
    'decodery.stream(model, "Hello", progress=3)',
    'decodery.score(model, "Hello", "yes", max_new_tokens=3)',
    'decodery.compare(model, "Hello", ["ngram"], rounds="3")',
    'decodery.load("smollm2", backends="torch")',
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("typed") / "typed.py"
    path.write_text(RIGHT + "\n".join(WRONG) + "\n")
    return path


def told_of(found: set[int]) -> tuple[list[str], list[str]]:
    """The wrong calls that were not found, and what else was."""
    first = RIGHT.count("\n") + 1
    wrong = set(range(first, first + len(WRONG)))
    lines = RIGHT.splitlines()
    return [WRONG[i - first] for i in sorted(wrong - found)], [lines[i - 1] for i in sorted(found - wrong)]


def test_mypy_finds_what_is_wrong(file: Path) -> None:
    root = Path(decodery.__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"MYPYPATH": str(root / "src")})
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert told_of(found) == ([], []), done.stdout + done.stderr


def test_pyright_finds_what_is_wrong(file: Path) -> None:
    """basedpyright, which is pyright with a Node.js of its own; in its standard mode."""
    if find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed: pip install basedpyright")
    source = str(Path(decodery.__file__).parents[1])
    (file.parent / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "include": [file.name], "extraPaths": [source]})
    )
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "--project", str(file.parent)], capture_output=True, text=True)
    told = json.loads(done.stdout)["generalDiagnostics"]
    found = {one["range"]["start"]["line"] + 1 for one in told if one["severity"] == "error"}
    assert told_of(found) == ([], []), "\n".join(
        f"{one['range']['start']['line'] + 1}: {one['message']}" for one in told
    )
