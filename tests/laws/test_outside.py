"""One part of each role from a folder of its own, through the public entry point: the package is not touched.

The parts are those of ``outer_parts.txt``. Commands run in processes of their own, as their user would run them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

import decodery
from decodery.core.errors import DecoderyError, PartsClash
from decodery.laws import draft as draft_laws
from decodery.laws import verify as verify_laws
from decodery.laws.specimens import LawBroken, binding, chosen
from decodery.run import registry
from decodery.run.recipe import Recipe
from decodery.run.spec import part

from ..cases.loading_common import SIZES, byte_level, random

POINTS = """[decodery.parts]
draft/uniform = outer_parts:Uniform
verify/match = outer_parts:Match
guide/middle = outer_parts:Middle
constrain/no-echo = outer_parts:NoEcho
search/shorter = outer_parts:Shorter

[pytest11]
decodery.laws.plugin = decodery.laws.plugin
"""
SOURCE = Path(decodery.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody else installed: a module, and what its distribution declares."""
    made = tmp_path_factory.mktemp("outside")
    (made / "outer_parts.py").write_text((Path(__file__).parent / "outer_parts.txt").read_text())
    info = made / "outer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    return made


@pytest.fixture
def outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(folder))
    registry._declared.cache_clear()
    yield
    registry._declared.cache_clear()
    sys.modules.pop("outer_parts", None)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model in a folder."""
    made = tmp_path_factory.mktemp("network")
    words = byte_level()
    random(transformers.LlamaConfig(vocab_size=len(words), **SIZES)).save_pretrained(made)
    words.save_pretrained(made)
    return made


def ran(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that finds the folder."""
    paths = os.pathsep.join([str(folder), str(SOURCE)])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


ALL = {
    "draft": "mix(uniform:length=2,ngram)",
    "verify": "match",
    "guide": ["middle:layer=1", "temperature:0.8"],
    "constrain": "no-echo",
}


@pytest.mark.usefixtures("outside")
def test_they_are_named_like_any_part(network: Path) -> None:
    """In Python: by name, by ``module:Class`` and as objects, inside mix, and through a recipe that round-trips."""
    recipe = Recipe.of(draft="uniform:length=2", search="shorter", **{k: v for k, v in ALL.items() if k != "draft"})
    again = Recipe.from_text(recipe.to_text())
    assert again == recipe
    assert again == Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again.to_dict()["draft"] == {"uniform": {"length": 2}}
    assert part("draft", "outer_parts:Uniform") == part("draft", "uniform")
    model = decodery.load(str(network), dtype="float32")
    answers = [decodery.decode(model, "hello", recipe=one, max_new_tokens=8, seed=3).tokens for one in (recipe, again)]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 8 or answers[0][-1] in model.eos
    assert all(a != b for a, b in zip(answers[0], answers[0][1:], strict=False))
    greedy = decodery.decode(model, "hello", draft="mix(uniform,ngram)", guide="middle", max_new_tokens=8)
    assert greedy.tokens == decodery.decode(model, "hello", guide="middle", max_new_tokens=8).tokens
    assert greedy.tokens != decodery.decode(model, "hello", max_new_tokens=8).tokens
    with pytest.raises(PartsClash, match="'uniform' draws siblings"):
        decodery.decode(model, "hello", draft="mix(uniform,ngram)", guide="temperature", max_new_tokens=2)


def test_the_command_line_knows_them(folder: Path, network: Path) -> None:
    options = [
        "-d",
        "mix(uniform:length=2,ngram)",
        "--verify",
        "match",
        "-g",
        "middle:layer=1",
        "--constrain",
        "no-echo",
    ]
    text = ["-c", "from decodery.cli import main; main()"]
    answer = ran(folder, *text, "run", "hello", "--model", str(network), *options, "--max-new-tokens", "4", "--json")
    assert answer.returncode == 0, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout)
    assert told["recipe"]["guide"] == [{"middle": {"layer": 1}}]
    assert len(told["tokens"]) == 4
    listed = ran(folder, *text, "list", "search", "--json")
    assert "shorter" in {row["name"] for row in json.loads(listed.stdout)}


def test_one_command_examines_them(folder: Path) -> None:
    """``pytest --pyargs decodery.laws --part ...`` for a part of each role, by name and by ``module:Class``."""
    named = ["outer_parts:Uniform", "verify/match", "outer_parts:Middle:layer=1", "no-echo", "search/shorter"]
    options = [option for name in named for option in ("--part", name)]
    # The pairs of each with everything take a minute; one of them stands for all here.
    ran_laws = ran(
        folder,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--pyargs",
        "decodery.laws",
        *options,
        "-k",
        "test_alone or no-echo",
    )
    assert ran_laws.returncode == 0, ran_laws.stdout + ran_laws.stderr
    assert "exact cases" in ran_laws.stdout
    assert "laws of single parts" in ran_laws.stdout


@pytest.mark.usefixtures("outside")
def test_the_command_says_what_is_wrong(folder: Path) -> None:
    for name, said in (
        ("outer_parts:Undeclared", "declares no parameters: put @dataclass"),
        ("outer_parts:Empty", "does not define propose or proposing"),
        ("outer_parts:Nobody", "cannot be imported"),
        ("nobody", "no part that has laws is called 'nobody'"),
    ):
        with pytest.raises(DecoderyError) as caught:
            chosen(name)
        assert said in str(caught.value)
    refused = ran(folder, "-m", "pytest", "-q", "--pyargs", "decodery.laws", "--part", "outer_parts:Empty")
    assert refused.returncode != 0
    assert "does not define propose or proposing" in refused.stdout + refused.stderr


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("spec", "law", "said"),
    [
        ("outer_parts:Biased", draft_laws.honest, "says that token 0 was drawn with probability 0.333333"),
        ("outer_parts:Choosy", draft_laws.honest, "says that token"),
        ("outer_parts:Choosy", draft_laws.settled, "calls trees settled"),
        ("outer_parts:WrongScheme", draft_laws.legal, "siblings that should differ"),
        ("outer_parts:RaisesInBind", binding, "RaisesInBind.bind raises RuntimeError: no such thing"),
        ("outer_parts:AcceptsAll", verify_laws.exact, "wrong by"),
    ],
)
def test_parts_that_lie_are_caught(spec: str, law: Any, said: str) -> None:
    (one,) = chosen(spec)
    with pytest.raises(LawBroken) as caught:
        law(one.part)
    assert said in str(caught.value)
