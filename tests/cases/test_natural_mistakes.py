"""What people get wrong at the first try: exit code 2, a sentence that says what would work, no traceback."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from ..units.test_cli import tiny  # noqa: F401
from .test_bad_values import plain
from .test_command_line import call, folder  # noqa: F401

MISTAKES: list[tuple[str, list[str], str]] = [
    # wrong flags and commands
    ("an underscore", ["run", "hi", "--max_tokens", "4"], "--max-tokens"),
    ("a slip of the pen", ["run", "hi", "--temprature", "1"], "--temperature"),
    ("an option of others", ["run", "hi", "--tokens", "4"], "--max-tokens"),
    ("a command that is none", ["generate", "hi"], "Commands: run, chat"),
    ("a command almost", ["comapre", "hi"], "Did you mean 'compare'?"),
    ("a prompt without quotes", ["run", "why", "is", "it"], "put a prompt of several words in quotes"),
    ("a prompt to chat", ["chat", "hello"], "decodery chat --help"),
    ("a value without its option", ["doctor", "smollm2"], "decodery doctor --help"),
    ("no output", ["index", "notes.txt"], "Missing option '--output'"),
    # wrong values
    ("a word for a number", ["run", "hi", "-n", "four"], "valid integer"),
    ("no tokens", ["run", "hi", "-n", "0"], "1 or more, or -1: until the end"),
    ("a negative temperature", ["run", "hi", "-t", "-1"], "--temperature: temperature needs t >= 0"),
    ("a percentage", ["run", "hi", "--top-p", "90"], "--top-p: top-p needs 0 <= p <= 1"),
    ("a plan that is none", ["run", "hi", "--plan", "fast"], "auto, fixed:N"),
    ("half a number", ["run", "hi", "--top-k", "0.5"], "--top-k"),
    ("an empty stop", ["run", "hi", "-m", "TINY", "--stop", ""], "stop takes non-empty texts"),
    ("lengths of others", ["sweep", "--lengths", "1k"], "positive whole numbers separated by commas"),
    ("a seed of others", ["run", "hi", "-s", "-5"], "-1: another each time"),
    ("an empty prompt", ["run", ""], "the prompt is empty"),
    # parts and parameters
    ("a part almost", ["run", "hi", "-d", "ngramm"], "Did you mean 'ngram'?"),
    ("another writing", ["run", "hi", "-g", "top_p:0.9"], "Did you mean 'top-p'?"),
    ("an equals sign", ["run", "hi", "-g", "temperature=0.7"], "Did you mean 'temperature'?"),
    ("a parameter that is none", ["run", "hi", "-d", "ngram:n=3"], "it has max, min, length, width"),
    ("a parameter almost", ["run", "hi", "-d", "ngram:lenght=3"], "Did you mean 'length'?"),
    ("a word for a parameter", ["run", "hi", "-d", "ngram:max=four"], "must be int"),
    ("contradicting parameters", ["run", "hi", "-d", "ngram:min=5,max=2"], "1 <= min <= max"),
    ("a list without brackets", ["run", "hi", "--constrain", "choice:yes,no"], "choice:[yes,no]"),
    ("a part without what it needs", ["run", "hi", "--constrain", "choice"], "choice:[yes,no]"),
    ("a format almost", ["run", "hi", "--constrain", "jsonschema"], "Did you mean 'json-schema'?"),
    ("a broken regex", ["run", "hi", "-m", "BYTES", "--constrain", "regex:(a"], "unclosed group"),
    ("a bracket that stays open", ["run", "hi", "-d", "mix(ngram"], "check its brackets"),
    ("a store that is not made", ["run", "hi", "-d", "datastore"], "decodery index FILES -o STORE"),
    ("a store that is not there", ["run", "hi", "-m", "TINY", "-d", "datastore:nowhere"], "build one: decodery index"),
    ("a role that is a part", ["list", "ngram"], "decodery show ngram"),
    ("a part to show", ["show", "top_p"], "Did you mean 'top-p'?"),
    ("laws of what is none", ["laws", "ngramm"], "Did you mean 'ngram'?"),
    ("a method almost", ["compare", "hi", "--methods", "ngram,suffx"], "Did you mean 'suffix'?"),
    # files
    ("a prompt file that is not there", ["run", "-f", "nowhere.txt"], "there is no such file: nowhere.txt"),
    ("a folder for a prompt", ["run", "-f", "dir"], "dir is a folder; name a file in it"),
    ("an empty prompt file", ["run", "-f", "empty.txt"], "there is nothing in empty.txt"),
    ("another encoding", ["run", "-f", "latin.txt"], "convert it first (iconv -t utf-8)"),
    ("the encoding of Windows", ["run", "-f", "utf16.txt"], "convert it first (iconv -t utf-8)"),
    ("a folder to index", ["index", "dir", "-o", "s", "-m", "TINY"], "it is a folder: name files in it"),
    ("nothing to index", ["index", "empty.txt", "-o", "s", "-m", "TINY"], "at least one token"),
    ("a recipe with another entry", ["run", "hi", "--recipe", "recipe.yaml"], "Did you mean 'draft'?"),
    ("a recipe that is no YAML", ["run", "hi", "--recipe", "broken.yaml"], "not YAML or JSON"),
    ("a configuration that is not there", ["--config", "nowhere.yaml", "run", "hi"], "no such config file"),
    ("a template of another kind", ["fit-tree", "notes.txt", "-o", "t.txt", "-m", "TINY"], "ends in .json"),
    ("a trace in no folder", ["run", "hi", "--trace", "no/where.html"], "there is no folder"),
    # models
    ("a model that is not there", ["run", "hi", "-m", "nowhere.gguf"], "no such file: nowhere.gguf"),
    ("a GGUF that is none", ["run", "hi", "-m", "fake.gguf"], "does not begin with 'GGUF'"),
    ("a file that is no model", ["run", "hi", "-m", "notes.txt"], "is a file, but no .gguf file"),
    ("a folder that holds none", ["run", "hi", "-m", "dir"], "there is no config.json in it"),
    ("weights alone", ["run", "hi", "-m", "./model.safetensors"], "give the directory that holds it"),
    ("an address", ["run", "hi", "-m", "https://huggingface.co/Qwen/Qwen3-0.6B"], "'Qwen/Qwen3-0.6B'"),
    ("a name of Ollama", ["run", "hi", "-m", "llama3.2"], "meta-llama/Llama-3.2-1B-Instruct"),
    ("a hub id of nobody", ["run", "hi", "-m", "nobody/nothing"], "cannot be reached from here"),
    ("a device for a backend", ["run", "hi", "-m", "TINY", "--backend", "cuda"], "torch, openvino, auto"),
    ("a device that is none", ["run", "hi", "-m", "TINY", "--device", "gpu"], "use auto or cpu"),
    ("a dtype of others", ["run", "hi", "-m", "TINY", "--dtype", "fp16"], "float16"),
    ("a dtype that is a change", ["run", "hi", "-m", "TINY", "--dtype", "int8"], "are a change: int8"),
    ("a context too large", ["run", "hi", "-m", "TINY", "-c", "100000"], "is more than the context"),
    ("a prompt too long", ["run", "w5 " * 200, "-m", "TINY"], "the model's context is 96"),
    # what contradicts
    ("two prompts", ["run", "hi", "-f", "notes.txt"], "leave out one of them"),
    ("two prompts again", ["run", "hi", "-p", "ho"], "leave out one of them"),
    ("a recipe and a part", ["run", "hi", "--recipe", "recipe.yaml", "-d", "ngram"], "leave out --draft, or --recipe"),
    ("raw and a system message", ["run", "hi", "-m", "TINY", "--raw", "--system", "x"], "leave it out"),
    ("a chat as JSON", ["run", "hi", "-i", "--json"], "leave out one"),
    ("greedy and a temperature", ["run", "hi", "-m", "TINY", "--verify", "greedy", "-t", "0.7"], "use verify=residual"),
    ("beams and a draft", ["run", "hi", "-m", "TINY", "--search", "beam", "-d", "ngram"], "drop one"),
    ("a memory of nothing", ["run", "hi", "-m", "TINY", "-d", "ngram", "--memory", "m"], "recycling and aded do"),
    ("revisions of a folder", ["run", "hi", "-m", "TINY", "--revision", "v2"], "for models on the hub"),
    # benchmarks
    ("a suite almost", ["bench", "minni"], "mini, spec-bench"),
    ("a suite's file", ["bench", "spec-bench", "nowhere.jsonl"], "no such file"),
    ("a peer that is none", ["bench", "mini", "-m", "TINY", "--peers", "vllm"], "peers: transformers"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("mistakes")
    (path / "dir").mkdir()
    for name, data in {
        "notes.txt": b"w5 w6\n",
        "empty.txt": b"",
        "latin.txt": b"caf\xe9",
        "utf16.txt": "hello".encode("utf-16"),
        "fake.gguf": b"no gguf at all",
        "recipe.yaml": b"drafts: ngram",
        "broken.yaml": b"draft: [",
    }.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture(autouse=True)
def somewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for module in ("load", "resolve"):
        monkeypatch.setattr(f"decodery.model.{module}.reachable", lambda: False)


def told(*arguments: str) -> str:
    result = call(*arguments, input="")
    said = plain(result.stderr)
    assert result.exit_code == 2, (said, result.stdout, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return said


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 40
    assert len({name for name, _, _ in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize(("arguments", "works"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_told(arguments: list[str], works: str, tiny: str, folder: Path) -> None:  # noqa: F811
    assert works in told(*({"TINY": tiny, "BYTES": str(folder)}.get(word, word) for word in arguments))


def test_missing_extras(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What a command needs beyond the package is named before any work, with the command that installs it."""
    found = importlib.util.find_spec
    missing = {"matplotlib", "psutil", "llama_cpp", "openvino"}
    fewer: Any = lambda name, *more: None if name in missing else found(name, *more)  # noqa: E731
    monkeypatch.setattr("decodery.bench.run.find_spec", fewer)
    assert "pip install matplotlib psutil" in told("bench", "mini", "-m", tiny)
    monkeypatch.setattr("importlib.util.find_spec", fewer)
    assert "pip install 'openvino" in told("run", "hi", "-m", tiny, "--backend", "openvino")
    from decodery.bench.runners import peer
    from decodery.core.errors import DecoderyError

    with pytest.raises(DecoderyError, match="pip install llama-cpp-python"):
        peer("llamacpp", tiny, None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pytest", None)
    assert "pip install pytest" in told("laws", "ngram")
