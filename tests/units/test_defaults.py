"""What is taken where a call says nothing: the fastest exact choice, which may not change a single answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

import decodery
from decodery.core.errors import PartsClash
from decodery.core.law import Law
from decodery.core.stats import Stats
from decodery.core.step import Step, Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Cap, Rows
from decodery.draft.auto import Auto
from decodery.model.load import load
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.verify.greedy import Greedy
from decodery.verify.residual import Residual
from decodery.verify.sample_and_match import SampleAndMatch

from ..hf.test_decode import model
from .test_cli import call, tiny  # noqa: F401

PROMPT = [5, 9, 12, 7, 5, 9, 12, 7, 5]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in ("BACKEND", "DRAFT", "PLAN"):
        monkeypatch.delenv(f"DECODERY_{option}", raising=False)


def test_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Recipe.of().draft, Auto)
    assert Recipe.of().to_dict() == {}
    monkeypatch.setenv("DECODERY_DRAFT", "ngram:max=2")
    assert Recipe.of().to_dict()["draft"] == {"ngram": {"max": 2}}
    assert Recipe.of(draft="none").to_dict() == {"draft": "none"}


def test_a_seed_gives_the_same_answer_whatever_is_drafted() -> None:
    """Certain drafts are judged by the draw that plain decoding would make, so a plan made by the clock changes nothing."""
    net = model("llama")
    for seed in range(3):
        options: Any = {"guide": "temperature:0.8", "seed": seed, "max_new_tokens": 24, "ignore_eos": True}
        plain = decodery.decode(net, PROMPT, draft="none", plan="off", **options)
        for draft, plan in (("auto", "auto"), ("auto", "off"), ("auto", "fixed:3"), ("recycling", "off")):
            assert decodery.decode(net, PROMPT, draft=draft, plan=plan, **options).tokens == plain.tokens


def test_the_verifier_that_fits() -> None:
    toy = ToyModel()
    for draft, guide, kind in (
        ("auto", (), Greedy),
        ("auto", "temperature:0.8", SampleAndMatch),
        ("none", "temperature:0.8", SampleAndMatch),
        ("iid:path=toy", "temperature:0.8", Residual),
    ):
        assert type(build(Recipe.of(draft=draft, guide=guide), toy).verify) is kind


def test_drafts_nobody_asked_for_give_way() -> None:
    """To a search that explores by itself, to a verifier of other trees, and to a model that takes no trees."""
    toy, chain = ToyModel(), ToyModel(can=frozenset())
    assert not build(Recipe.of(search="beam:width=2"), toy).draft.emits
    assert not build(Recipe.of(), chain).draft.emits
    assert build(Recipe.of(), toy).draft.emits
    with pytest.raises(PartsClash, match="explores without drafts"):
        build(Recipe.of(draft="recycling", search="beam:width=2"), toy)
    with pytest.raises(PartsClash, match="this toy was made without it"):
        build(Recipe.of(draft="del"), chain)


def test_what_a_recipe_needs_chooses_the_backend() -> None:
    assert not Recipe.of().needs
    assert Cap.LAYERS in Recipe.of(draft="swift").needs
    assert Cap.HIDDEN in Recipe.of(guide="dola").needs


def test_the_default_backend(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("decodery.model.load._no_openvino", lambda *_: "it is not installed")
    assert load(tiny).backend == "torch"
    monkeypatch.setenv("DECODERY_BACKEND", "openvino")
    with pytest.raises(decodery.DecoderyError, match="not installed"):
        load(tiny)


def test_an_answer_says_how_much_faster_it_was(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("DECODERY_BACKEND", "torch")
    told = json.loads(call("run", "w5 w9 w12", "-m", tiny, "-n", "8", "--json").stdout)
    assert told["stats"]["plain_forward_seconds"] > 0
    plain = json.loads(call("run", "w5 w9 w12", "-m", tiny, "-n", "8", "-d", "none", "--plan", "off", "--json").stdout)
    assert plain["stats"]["plain_forward_seconds"] == 0
    assert plain["tokens"] == told["tokens"]


def test_an_answer_without_accepted_drafts_claims_no_speed() -> None:
    """What plain decoding takes is measured in the answer itself; a planner's old opinion counts where it drafted all along."""
    stats = Stats(seconds=10.0, first=0.5)
    rows = Rows(torch.zeros(1, 3), (0,))
    for _ in range(20):
        stats.add(
            Step(TokenTree(), rows, Law(rows.logits, True), Verdict((), (1,)), [1], {"forward": 0.4, "text": 0.1})
        )
    stats.set_plain(4.0)
    assert stats.plain == pytest.approx(0.5)
    assert stats.speedup == pytest.approx(1.0)
    drafted = Stats(seconds=10.0, first=0.5, tokens=20)
    drafted.set_plain(4.0)
    assert drafted.plain == 4.0


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")], ids=str
)
def test_threads_wait_passively_unless_the_environment_says_otherwise(given: dict[str, str], spins: str) -> None:
    """It is said before torch is imported; later it would have no effect."""
    code = "import decodery, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    out = subprocess.run([sys.executable, "-c", code], env=kept | given, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [spins, "False"]
