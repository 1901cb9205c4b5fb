"""The command line over a tiny model in a local directory."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decodery.cli import app
from decodery.inspect import doctor
from decodery.inspect.doctor import machine

from ..hf.test_decode import tokenizer
from ..hf.tiny import network

CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: Any) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    words = tokenizer()
    words.chat_template = CHAT
    network("llama").save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def call(*arguments: str, code: int = 0, **options: Any) -> Any:
    result = CliRunner().invoke(app, list(arguments), **options)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_run_streams_and_closes_with_figures(tiny: str) -> None:
    result = call("run", "w5 w9 w12", "-m", tiny, "-d", "jacobi", "-n", "12", "--show-draft")
    assert result.stdout.startswith("w")
    assert "tokens/forward" in result.stderr
    quiet = call("run", "w5 w9 w12", "-m", tiny, "-n", "12", "--quiet")
    assert quiet.stdout == result.stdout
    assert not quiet.stderr


def test_run_prints_json(tiny: str) -> None:
    common = ("-m", tiny, "-n", "9", "--json", "-t", "0.8", "--seed", "3")
    answer = json.loads(call("run", "w5 w9 w12", *common, "-d", "ngram:max=3").stdout)
    assert answer["recipe"] == {"draft": {"ngram": {"max": 3}}, "guide": [{"temperature": {"t": 0.8}}]}
    assert answer["finish_reason"] == "length"
    assert len(answer["tokens"]) == answer["stats"]["tokens"] == 9
    again = json.loads(call("run", "-", *common, "--draft", "none", input="w5 w9 w12").stdout)
    assert again["tokens"] == answer["tokens"]


def test_model_and_parts_from_environment_config_and_recipe(tiny: str, tmp_path: Path) -> None:
    plain = call("run", "w5 w9", "-n", "6", "-q", env={"DECODERY_MODEL": tiny}).stdout
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {tiny}\ndraft: jacobi\nmax_new_tokens: 6\n")
    unset = {"DECODERY_DRAFT": ""}  # the environment counts before the file
    answer = json.loads(call("--config", str(config), "run", "w5 w9", "--json", env=unset).stdout)
    assert answer["text"].strip() == plain.strip()
    assert answer["recipe"] == {"draft": "jacobi"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("draft: {ngram: {width: 2}}\nguide: [{repetition: 1.5}]\n")
    answer = json.loads(call("run", "w5 w9", "-m", tiny, "--recipe", str(recipe), "-n", "3", "--json").stdout)
    assert answer["recipe"] == {"draft": {"ngram": {"width": 2}}, "guide": [{"repetition": {"penalty": 1.5}}]}


def test_compare_under_other_parts(tiny: str, tmp_path: Path) -> None:
    """The other parts hold for all drafters; where answers are draws, none is called equal or different."""
    common = ("compare", "w5 w9 w12", "-m", tiny, "-n", "8", "--json")
    rows = json.loads(call(*common, "-d", "ngram", "-g", "repetition:1.3").stdout)
    assert [row["identical"] for row in rows] == [True, True]
    rows = json.loads(call(*common, "-d", "ngram", "-t", "0.9").stdout)
    assert [row["identical"] for row in rows] == [None, None]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("draft: {ngram: {max: 2}}\nguide: [{repetition: 1.3}]\n")
    rows = json.loads(call(*common, "--recipe", str(recipe)).stdout)
    assert [row["draft"] for row in rows] == ["none", "ngram:max=2"]


def test_a_configuration_file_says_what_it_means(tiny: str, tmp_path: Path) -> None:
    config, recipe = tmp_path / "config.yaml", tmp_path / "recipe.yaml"
    recipe.write_text("draft: jacobi\n")
    config.write_text(f"model: {tiny}\ndraft: ngram\nguide: repetition:1.5\nmax_new_tokens: 3\n")
    unset = {"DECODERY_DRAFT": ""}  # the environment counts before the file
    answer = json.loads(call("--config", str(config), "run", "w5 w9", "--json", env=unset).stdout)
    assert answer["recipe"] == {"draft": "ngram", "guide": [{"repetition": {"penalty": 1.5}}]}
    answer = json.loads(call("--config", str(config), "run", "w5", "--json", "--recipe", str(recipe)).stdout)
    assert answer["recipe"] == {"draft": "jacobi"}  # a default gives way to what was typed
    config.write_text("drafts: ngram\n")
    assert "Did you mean 'draft'" in call("--config", str(config), "run", "x", code=2).stderr.replace("\n", " ")


def test_bench_under_other_parts(tiny: str, tmp_path: Path) -> None:
    questions = tmp_path / "prompts.txt"
    questions.write_text("a b a b\nb c\n")
    options = ("-m", tiny, "--backend", "torch", "-n", "6", "--report", str(tmp_path / "out"), "-d", "ngram")
    call("bench", "prompts", str(questions), *options, "-g", "top-k:3", "--verify", "block", "-t", "0.8")
    parts = json.loads((tmp_path / "out" / "run.json").read_text())["config"]["parts"]
    assert parts == {"verify": "block", "guide": [{"top-k": {"k": 3}}, {"temperature": {"t": 0.8}}]}


def test_compare(tiny: str) -> None:
    rows = json.loads(call("compare", "w5 w9 w12", "-m", tiny, "-n", "20", "--json").stdout)
    assert [row["draft"] for row in rows] == ["none", "ngram", "recycling", "suffix", "auto"]
    assert all(row["identical"] for row in rows)
    assert all(row["drafted"] for row in rows[1:])
    table = call("compare", "w5 w9 w12", "-m", tiny, "-n", "5", "-d", "ngram:max=2,min=1,recycling").stdout
    assert "identical" in table
    assert "recycling" in table
    result = call("compare", "w5 w9 w12", "-m", tiny, "-n", "5", "-d", "ngram", "--rounds", "3")
    assert re.search(r"\d\.\d \[\d+, \d+\]", result.stdout)
    assert re.search(r"cores.* · decodery .* · medians of 3 rounds", result.stderr)


def test_profile(tiny: str) -> None:
    result = call("profile", "a b a b", "-m", tiny, "-d", "ngram", "-n", "8", "--json")
    found = json.loads(result.stdout)
    assert {"draft", "mask", "forward", "verify", "text"} <= found["phases"].keys()
    assert found["stats"]["tokens"] == 8
    assert "n=8" in call("profile", "a b", "-m", tiny, "-n", "4").stdout


def test_bench(tiny: str, tmp_path: Path) -> None:
    questions = tmp_path / "prompts.txt"
    questions.write_text("a b a b\nb c\n")
    options = ("-m", tiny, "--backend", "torch", "-n", "6", "--report", str(tmp_path / "out"), "--methods", "ngram")
    result = call("bench", "prompts", str(questions), *options)
    assert "| ngram |" in result.stdout
    assert "2 of 2" in result.stdout
    again = call("bench", "prompts", str(questions), *options)  # nothing is left to do
    assert again.stdout == result.stdout
    assert (tmp_path / "out" / "report.html").exists()
    (tmp_path / "out" / "report.html").unlink()
    assert "report.html" in call("report", str(tmp_path / "out")).stderr
    assert (tmp_path / "out" / "report.html").exists()
    twice = call("bench", "prompts", str(questions), *options, "--repeat", "2", code=2)
    assert "repeat differ" in twice.stderr
    options = (*options[:-4], "--report", str(tmp_path / "twice"), "--repeat", "2", "--methods", "ngram")
    assert "4 of 4" in call("bench", "prompts", str(questions), *options).stdout
    assert "holds no run" in call("report", str(tmp_path), code=2).stderr


def test_list_and_show() -> None:
    rows = json.loads(call("list", "--json").stdout)
    assert {row["role"] for row in rows} == {"draft", "verify", "guide", "constrain", "search", "change"}
    assert "recycling" in call("list", "draft").stdout
    shown = call("show", "recycling").stdout
    assert "'small'" in shown
    assert "k >= 1" in shown
    assert "k tokens last" in shown.replace("`", "").replace("\n", " ")
    assert "Luo et al. 2024" in shown
    assert "--draft recycling" in shown
    assert "recycling.py" in shown
    assert "guide part top-p" in call("show", "guide/top-p").stdout


def test_changes_and_what_the_library_logs(tiny: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("decodery.model.load._no_openvino", lambda *_: "it is not installed")
    call_of = ("run", "w5 w9", "-m", tiny, "-n", "4", "--backend", "auto")
    assert "for OpenVINO cannot be used: it is not installed" in call(*call_of).stderr
    assert "lossy" in call(*call_of, "--change", "int8").stderr
    assert "no change part is called 'int9'" in call(*call_of, "--change", "int9", code=2).stderr


def test_trace_is_written(tiny: str, tmp_path: Path) -> None:
    page = tmp_path / "trace.html"
    call("run", "w5 w9 w12", "-m", tiny, "-d", "jacobi", "-n", "6", "--trace", str(page))
    assert "<html" in page.read_text()
    call("run", "w5 w9 w12", "-m", tiny, "-n", "6", "--trace", str(page), env={"DECODERY_DRAFT": "ngram"})
    assert '"recipe":{"draft":"ngram"}' in page.read_text()  # the default is told; it was shown as none
    call("run", "w5", "-m", tiny, "-n", "2", "--trace", str(tmp_path / "missing" / "trace.html"), code=2)


def test_doctor(tiny: str, monkeypatch: Any) -> None:
    report = json.loads(call("doctor", "-m", tiny, "--backend", "torch", "--json").stdout)
    assert report["abilities"]["tree"] == "yes"
    assert {"n=1", "n=4", "n=8", "n=16", "overhead"} <= set(report["cost of a forward, torch"])
    assert any("W x'" in told or "linear" in told for told in report["Linear layers, torch"].values())
    monkeypatch.setattr("decodery.model.load._no_openvino", lambda *_: "it is not installed")
    both = json.loads(call("doctor", "-m", tiny, "--backend", "auto", "--json").stdout)
    assert "not installed" in both["cost of a forward, openvino"]["not available"]


def test_a_result_names_its_commit(tmp_path: Path, monkeypatch: Any) -> None:
    """Of the repository that tracks the package; one around an installed package is another matter."""

    def git(*command: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True, capture_output=True)

    (tmp_path / "inspect").mkdir()
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "inspect" / "doctor.py"))
    (tmp_path / "inspect" / "doctor.py").write_text("1\n")
    assert machine()["commit"] == "none"
    git("init", "-q")
    assert machine()["commit"] == "none"
    git("add", ".")
    git("commit", "-qm", "first")
    clean = machine()["commit"]
    assert set(clean) <= set("0123456789abcdef")
    (tmp_path / "loop.py").write_text("1\n")  # a change of the package, not of the folder that asks
    assert machine()["commit"] == f"{clean}+"
    git("add", ".")
    git("commit", "-qm", "second")
    assert machine()["commit"] not in (clean, f"{clean}+")


def test_chat(tiny: str, tmp_path: Path) -> None:
    """A conversation keeps its cache; commands work; what is wrong does not end it."""
    lines = [
        "w5 w9",
        "/draft jacobi",
        "w12",
        "/stats",
        "/nonsense",
        "/draft nonsense",
        f"/save {tmp_path / 'talk.json'}",
        "/quit",
    ]
    shown = call("chat", "-m", tiny, "-n", "4", input="\n".join(lines)).stdout
    assert "no command /nonsense" in shown
    assert "no draft part is called 'nonsense'" in shown
    talk = json.loads((tmp_path / "talk.json").read_text())
    assert [message["role"] for message in talk] == ["user", "assistant"] * 2
    cached = [line for line in shown.splitlines() if "prompt tokens from the cache" in line]
    assert " 0 of 2 " in cached[0]
    assert " 0 of " not in cached[1]


def test_interrupt_stops_the_answer_not_the_chat(tiny: str, monkeypatch: Any) -> None:
    import decodery.cli.chat as chat

    real, calls = chat.stream, []

    def stream(*arguments: Any, **options: Any) -> Any:
        pieces = real(*arguments, **options)
        calls.append(pieces)
        if len(calls) == 1:
            step = type(pieces).__next__
            count = iter(range(99))

            class Interrupted(type(pieces)):  # type: ignore[misc]
                def __next__(self) -> Any:
                    if next(count) == 2:
                        raise KeyboardInterrupt
                    return step(self)

            pieces.__class__ = Interrupted
        return pieces

    monkeypatch.setattr(chat, "stream", stream)
    shown = call("chat", "-m", tiny, "-n", "6", "-d", "none", input="w5 w9\nw12\n/quit\n").stdout
    assert "stopped" in shown
    assert len(calls) == 2
    assert calls[1].output.finish_reason == "length"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "x", "-d", "ngran"], "Did you mean 'ngram'"),
        (["run", "x", "--recipe", "/nowhere.yaml"], "no such recipe file"),
        (["--config", "/nowhere.yaml", "run", "x"], "no such config file"),
        (["run", "x", "-m", "/nowhere/at/all"], "no directory, no .gguf file and no hub id"),
        (["run", "x", "-m", "/nowhere.gguf"], "no such file"),
        (["run", "x", "--verify", "greedy", "-t", "0.5", "-m", "TINY"], "is for greedy decoding"),
        (["run", " ", "-m", "TINY"], "the prompt is empty"),
        (["run", "w5 " * 200, "-m", "TINY"], "the model's context is 96"),
        (["run", "w5", "-m", "TINY", "--constrain", "regex:a"], "llguidance cannot read this one"),
        (["run", "w5", "-m", "TINY", "--dtype", "float99"], "dtype float99 cannot be computed in"),
        (["list", "nonsense"], "there is no role"),
        (["show", "nonsense"], "no part is called"),
        (["compare", "x", "-d", ",", "-m", "TINY"], "name drafters"),
    ],
)
def test_errors_exit_with_2_and_no_traceback(arguments: list[str], message: str, tiny: str) -> None:
    result = call(*[tiny if a == "TINY" else a for a in arguments], code=2)
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["--debug", "run", "x", "-d", "ngran"])
    assert type(result.exception).__name__ == "UnknownPart"
