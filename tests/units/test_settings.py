"""Options from the environment and from a configuration file, and which of them counts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from decodery.cli import app
from decodery.cli.settings import OTHERS, options_of
from decodery.core.errors import UnknownPart
from decodery.run.catalogue import example, parameters
from decodery.run.registry import entries
from decodery.run.spec import part

from .test_cli import call, tiny  # noqa: F401

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LOADING = ("run", "chat", "compare", "profile", "doctor", "bench", "sweep", "fit-tree")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("DRAFT", "PLAN"):
        monkeypatch.delenv(f"DECODERY_{option}", raising=False)


def answer(*arguments: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(*arguments, "--json", **options).stdout)
    return found


@pytest.mark.parametrize("given", [("typed", "environment", "file"), ("environment", "file"), ("file",)])
def test_what_counts_first(given: tuple[str, ...], tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """The command line, then the environment, then the file."""
    value = {"typed": ("3", "jacobi"), "environment": ("4", "ngram:max=3"), "file": ("5", "suffix")}
    config, environment, typed = tmp_path / "config.yaml", {}, []
    if "file" in given:
        config.write_text("max_new_tokens: {}\ndraft: {}\n".format(*value["file"]))
    if "environment" in given:
        environment = dict(zip(("DECODERY_MAX_NEW_TOKENS", "DECODERY_DRAFT"), value["environment"], strict=True))
    if "typed" in given:
        typed = ["-n", value["typed"][0], "-d", value["typed"][1]]
    found = answer("--config", str(config), "run", "w5 w9", "-m", tiny, *typed, env=environment)
    tokens, draft = value[given[0]]
    assert len(found["tokens"]) == int(tokens)
    assert found["recipe"] == {"draft": {"ngram": {"max": 3}} if ":" in draft else draft}


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("TEMPERATURE", "0.7", [{"temperature": {"t": 0.7}}]),
        ("TEMP", "0.7", [{"temperature": {"t": 0.7}}]),
        ("GUIDE", "[temperature:0.7, top-k:3]", [{"temperature": {"t": 0.7}}, {"top-k": {"k": 3}}]),
        ("GUIDE", "top-k:3", [{"top-k": {"k": 3}}]),
        ("TOP_K", "3", [{"top-k": {"k": 3}}]),
    ],
)
def test_options_of_the_environment_and_the_file_are_written_as_on_the_command_line(
    variable: str,
    value: str,
    wanted: Any,
    tiny: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    assert answer("run", "w5", "-m", tiny, "-n", "2", env={f"DECODERY_{variable}": value})["recipe"]["guide"] == wanted
    config = tmp_path / "config.yaml"
    config.write_text(f"{variable.lower().replace('_', '-')}: {value}\n")
    assert answer("--config", str(config), "run", "w5", "-m", tiny, "-n", "2")["recipe"]["guide"] == wanted


def test_flags_and_lists_from_elsewhere(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {tiny}\njson: yes\nraw: true\nstop: [w9, w7]\nverify:\nsystem: ''\n")
    found = json.loads(call("--config", str(config), "run", "w5", "-n", "2").stdout)
    assert found["stats"]["prompt_tokens"] == 1
    assert call("run", "w5", "-m", tiny, "-n", "2", env={"DECODERY_QUIET": "1"}).stderr == ""


def test_every_option_of_every_command_can_be_set() -> None:
    known = options_of(COMMANDS)
    for command in COMMANDS.values():
        for param in command.params:
            if param.param_type_name == "option" and param.name != "help":
                assert known[param.name].name == param.name
    assert not set(OTHERS) & set(known)
    assert known["max_tokens"].name == "max_new_tokens"


@pytest.mark.parametrize(
    ("environment", "config", "said"),
    [
        ({"DECODERY_DRAFT": "ngran"}, "", "(not from the command line: ngran from DECODERY_DRAFT"),
        ({}, "draft: ngran", "ngran from draft in"),
        ({"DECODERY_MAX_TOKENS": "many"}, "", "(DECODERY_MAX_TOKENS)"),
        ({}, "max-tokens: many", "(max-tokens in"),
        ({"DECODERY_THREADS": "0"}, "", "(DECODERY_THREADS)"),
        ({"DECODERY_RAW": "perhaps"}, "", "(DECODERY_RAW)"),
        ({"DECODERY_TEMPERATURE": "-1"}, "", "-1.0 from DECODERY_TEMPERATURE"),
        ({}, "max_new_tokens: [1, 2]", "max_new_tokens is written as on the command line"),
        ({}, "drafs: ngram", "Did you mean 'draft'"),
    ],
)
def test_a_bad_value_names_where_it_came_from(
    environment: dict[str, str],
    config: str,
    said: str,
    tiny: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "c.yaml").write_text(config)
    result = call("--config", str(tmp_path / "c.yaml"), "run", "w5", "-m", tiny, env=environment, code=2)
    told = " ".join(result.stderr.replace("│", " ").split())
    assert said in told
    assert not config or "c.yaml" in told.replace(" ", "")


def test_a_variable_that_is_no_option_is_told(tiny: str) -> None:  # noqa: F811
    told = call("run", "w5", "-m", tiny, "-n", "2", env={"DECODERY_DRAF": "ngram", "DECODERY_DATA": "/tmp"}).stderr
    assert "DECODERY_DRAF in the environment is the name of no option. Did you mean 'DECODERY_DRAFT'" in told
    assert "DECODERY_DATA" not in told


def test_a_recipe_and_single_parts(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """Where both come from the same place that is an error; else what counts first is taken."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("draft: jacobi\n")
    common = ("run", "w5", "-m", tiny, "-n", "2")
    given = {"DECODERY_DRAFT": "ngram"}
    assert answer(*common, "--recipe", str(recipe), env=given)["recipe"] == {"draft": "jacobi"}
    assert answer(*common, "-d", "ngram", env={"DECODERY_RECIPE": str(recipe)})["recipe"] == {"draft": "ngram"}
    typed = call(*common, "--recipe", str(recipe), "-d", "ngram", code=2).stderr
    assert "leave out --draft, or --recipe" in typed
    both = call(*common, env=given | {"DECODERY_RECIPE": str(recipe)}, code=2).stderr
    assert "ngram from DECODERY_DRAFT" in both


def test_what_one_drafter_is_does_not_choose_what_is_compared(tiny: str) -> None:  # noqa: F811
    given = {"DECODERY_DRAFT": "jacobi"}
    rows = json.loads(call("compare", "w5 w9", "-m", tiny, "-n", "3", "--json", env=given).stdout)
    assert [row["draft"] for row in rows] == ["none", "ngram", "recycling", "suffix", "auto"]
    given = {"DECODERY_METHODS": "jacobi"}
    rows = json.loads(call("compare", "w5 w9", "-m", tiny, "-n", "3", "--json", env=given).stdout)
    assert [row["draft"] for row in rows] == ["none", "jacobi"]


@pytest.mark.parametrize("name", LOADING)
def test_a_command_that_loads_a_model_can_say_how(name: str) -> None:
    options = {option for param in COMMANDS[name].params for option in param.opts}
    assert {"--revision", "--trust-remote-code", "--device", "--backend", "--dtype", "--change", "--threads"} <= options
    assert {"--revision", "--trust-remote-code"} <= {o for param in COMMANDS["index"].params for o in param.opts}


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "w5"],
        ["compare", "w5"],
        ["profile", "w5"],
        ["doctor"],
        ["chat"],
        ["bench", "prompts", "FILE", "--report", "OUT"],
        ["sweep", "--report", "OUT"],
        ["fit-tree", "FILE", "-o", "OUT/t.json"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--revision", "main"], "is for models on the hub"),
        (["--dtype", "float99"], "dtype float99 cannot be computed in"),
        (["--device", "nowhere"], "device=nowhere"),
        (["--backend", "none"], "there is no backend 'none'"),
    ],
    ids=lambda words: words[0].strip("-"),
)
def test_how_a_model_is_loaded_reaches_the_model(
    arguments: list[str],
    option: list[str],
    said: str,
    tiny: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "prompts.txt").write_text("w5 w6\n")
    words = [w.replace("FILE", str(tmp_path / "prompts.txt")).replace("OUT", str(tmp_path)) for w in arguments]
    told = call(*words, "-m", tiny, *option, code=2, input="").stderr
    assert said in " ".join(told.split())


def test_a_tokenizer_of_a_revision(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "text.txt").write_text("w5 w6 w7")
    common = ("index", str(tmp_path / "text.txt"), "-o", str(tmp_path / "store"), "-m", tiny)
    assert "is for models on the hub" in " ".join(call(*common, "--revision", "main", code=2).stderr.split())
    assert "4 tokens" in call(*common).stderr


def test_peers_read_the_model_as_it_is(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "prompts.txt").write_text("w5 w6\n")
    common = ("bench", "prompts", str(tmp_path / "prompts.txt"), "-m", tiny, "--report", str(tmp_path))
    told = call(*common, "--change", "int8", "--peers", "transformers", code=2).stderr
    assert "leave out --change" in told


def test_a_benchmark_of_a_changed_model(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "prompts.txt").write_text("w5 w6\n")
    common = ("bench", "prompts", str(tmp_path / "prompts.txt"), "-m", tiny, "--report", str(tmp_path), "-d", "none")
    call(*common, "-n", "3", "--change", "int8", "--dtype", "float32")
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert config["loading"] == {"change": ["int8"], "dtype": "float32"}


def test_an_answer_that_goes_on_as_a_chat(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    saved = tmp_path / "talk.json"
    shown = call("run", "w5 w9", "-i", "-m", tiny, "-n", "3", input=f"w6\n/save {saved}\n/quit\n").stdout
    assert "from the cache" in shown
    told = json.loads(saved.read_text())
    assert [message["content"] for message in told][::2] == ["w5 w9", "w6"]
    (tmp_path / "p.txt").write_text("w7")
    call("run", "-f", str(tmp_path / "p.txt"), "--interactive", "-m", tiny, "-n", "3", input=f"/save {saved}\n")
    assert json.loads(saved.read_text())[0]["content"] == "w7"
    call("run", "-i", "-m", tiny, "-n", "3", input=f"w8\n/save {saved}\n")
    assert json.loads(saved.read_text())[0]["content"] == "w8"
    for other in (["--json"], ["--raw"], ["--stop", "x"], ["--time-limit", "1"], ["--trace", "x.html"]):
        assert other[0] in call("run", "w5", "-i", "-m", tiny, *other, code=2).stderr


@pytest.mark.parametrize("entry", list(entries(outsiders=False)), ids=lambda e: f"{e.role}-{e.name}")
def test_what_is_shown_of_a_part(entry: Any, tmp_path: Path) -> None:
    told = parameters(entry.part)
    assert all(one.meaning and one.kind and one.default for one in told)
    words = shlex.split(example(entry))
    if entry.name == "processor":  # takes an object of Python
        assert not words
        return
    assert words[-2] == f"--{entry.role}"
    spec = words[-1].replace("STORE", str(tmp_path))
    try:
        assert part(entry.role, spec)
    except UnknownPart as error:
        pytest.fail(str(error))
