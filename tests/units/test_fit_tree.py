"""Fitted trees: the choice is the best one, what is counted is what happened, and an impossible template is named."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodery.core.errors import BadTemplate, DecoderyError, UnknownPart
from decodery.core.law import Law
from decodery.core.step import Step, Verdict
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Rows
from decodery.draft.lib.template import TEMPLATES, RankPath, Template, checked, template_of, write
from decodery.inspect.fit_template import Counts, best, chances
from decodery.model.toy import ToyModel
from decodery.run.recipe import Recipe

from .test_cli import call, tiny  # noqa: F401

SMALL = template_of("2x3", 8)[:9]
RATE = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))


def value(rates: dict[RankPath, float], template: Template) -> float:
    return sum(chances(rates, template))


@given(st.lists(RATE, min_size=len(SMALL), max_size=len(SMALL)), st.integers(1, len(SMALL)))
def test_the_greedy_choice_is_the_best_tree(numbers: list[float], nodes: int) -> None:
    """Against all sets of so many paths that hold the parent of each."""
    rates = dict(zip(SMALL, numbers, strict=True))
    chosen = best(rates, nodes)
    assert checked(chosen, 8, "it") == chosen
    assert len(chosen) == nodes
    trees = [t for t in combinations(SMALL, nodes) if all(len(path) == 1 or path[:-1] in t for path in t)]
    assert value(rates, chosen) == pytest.approx(max(value(rates, tree) for tree in trees))


@given(st.lists(RATE, min_size=80, max_size=80))
def test_a_fitted_tree_promises_no_less_than_the_small_one(numbers: list[float]) -> None:
    rates = dict(zip(TEMPLATES["published"], numbers, strict=True))
    assert value(rates, best(rates, len(TEMPLATES["small"]))) >= value(rates, TEMPLATES["small"]) - 1e-12


def step(tree: TokenTree, path: tuple[int, ...], extra: tuple[int, ...]) -> Step:
    verdict, logits = Verdict(path, extra), torch.zeros(1, 3)
    return Step(tree, Rows(logits, (0,)), Law(logits, True), verdict, verdict.tokens(tree))


def test_a_node_is_judged_where_its_parent_stood() -> None:
    tree = TokenTree()
    first, second = tree.add(1), tree.add(2)
    below = tree.add(0, second)
    tree.add(0, first)
    counts = Counts()
    counts.add(step(tree, (second, below), (1,)))
    counts.add(step(tree, (second,), ()))  # the answer ended behind it: its children were not judged
    counts.add(step(TokenTree(), (), (1,)))
    assert counts.accepted == {(1,): 2, (1, 0): 1}
    assert counts.judged == {(): 3, (1,): 1, (1, 0): 1}
    assert counts.offered == {(0,): 2, (1,): 2, (1, 0): 1}
    assert counts.rates([(0,), (1,), (1, 0), (0, 0)]) == {(0,): 0, (1,): 2 / 3, (1, 0): 1, (0, 0): 0}


def test_named_and_complete_templates() -> None:
    assert {name: len(paths) for name, paths in TEMPLATES.items()} == {"small": 15, "published": 80}
    assert template_of("2x2", 2) == ((0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1))
    assert template_of("published", 2) == TEMPLATES["published"]
    for spec, message in (("9x1", "rank 8"), ("0x3", "empty"), ("9999x9999", "too large"), ("3x0", "empty")):
        with pytest.raises(BadTemplate, match=message):
            template_of(spec, 8)
    with pytest.raises(UnknownPart, match=r"small, published, RANKSxDEPTH .* FILE.json"):
        template_of("huge", 8)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "is empty"),
        (None, "is empty"),
        ({}, "is empty"),
        ("[0]", "is empty"),
        ([[0], [1, 0]], r"node 2: the parent \[1\] of \[1, 0\] must stand before"),
        ([[0, 0], [0]], "must stand before"),
        ([[0], [0]], r"\[0\] is there twice"),
        ([[0], [8]], "rank 8 is none of the 8 guesses 0 to 7"),
        ([[-1]], "rank -1"),
        ([[True]], "whole numbers"),
        ([[0.0]], "whole numbers"),
        ([[]], "whole numbers"),
        ([0], "whole numbers"),
        (["00"], "whole numbers"),
        ([[i] for i in range(5000)], "4096"),
    ],
)
def test_an_impossible_template_is_named(tmp_path: Path, paths: Any, message: str) -> None:
    file = tmp_path / "tree.json"
    file.write_text(json.dumps({"format": 1, "template": paths}))
    with pytest.raises(DecoderyError, match=message):
        Recipe.of(f"recycling:template={file}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no template"),
        (b"\xff\xfe", "is no template"),
        (b"[[0]]", "is no template"),
        (b'{"format": 1}', "is no template"),
        (b'{"format": 2, "template": [[0]]}', "format 2"),
        (b"[" * 100_000, "is no template"),
        (b'{"format": 1, "template": [[' + b"9" * 5000 + b"]]}", "is no template"),
        (b'{"format": 1, "template": [[' + b"9" * 4000 + b"]]}", "rank 9999"),
    ],
)
def test_a_file_that_holds_none_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "tree.json"
    file.write_bytes(data)
    with pytest.raises(BadTemplate, match=message):
        template_of(str(file), 8)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    for name in ("folder.json", "none.json", "\0.json", "x" * 300 + ".json"):
        with pytest.raises(BadTemplate, match=r"cannot read|is no template"):
            template_of(f"{tmp_path}/{name}", 8)


WHOLE = json.dumps({"format": 1, "template": TEMPLATES["small"]}).encode()
CHANGE = st.tuples(
    st.integers(0, len(WHOLE)), st.integers(0, 12), st.one_of(st.binary(max_size=6), st.just(b"9" * 400))
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.lists(CHANGE, min_size=1, max_size=3),
        ANY.map(lambda paths: json.dumps({"format": 1, "template": paths}).encode()),
        ANY.map(lambda held: json.dumps(held).encode()),
    )
)
def test_a_damaged_file_is_a_template_or_a_clear_error(tmp_path: Path, damage: Any) -> None:
    data = damage if isinstance(damage, bytes) else WHOLE
    for place, length, new in () if isinstance(damage, bytes) else damage:
        data = data[:place] + new + data[place + length :]
    (tmp_path / "tree.json").write_bytes(data)
    try:
        template = template_of(str(tmp_path / "tree.json"), 8)
    except DecoderyError as error:
        assert len(str(error)) < 1500
    else:
        assert checked(template, 8, "it") == template


def test_what_was_written_is_what_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "tree.json"
    for template in (TEMPLATES["published"], ((3,), (3, 5))):
        write(file, template, {"model": "toy"})
        assert template_of(str(file), 8) == template
    Recipe.of(f"recycling:template={file}")
    assert json.loads(file.read_text())["model"] == "toy"
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(file, TEMPLATES["small"], {})
    assert os.listdir(tmp_path) == ["tree.json"]
    assert template_of(str(file), 8) == ((3,), (3, 5))


def _umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


def test_a_drafter_unrolls_the_file(tmp_path: Path) -> None:
    """Ranks may be left out; the tree is cut where the budget is."""
    write(tmp_path / "tree.json", ((1,), (1, 0), (0,)), {})
    toy = ToyModel()
    draft: Any = Recipe.of(f"recycling:template={tmp_path / 'tree.json'}").draft.bind(toy)
    draft.lore.known.update({0: [1, 2], 2: [0]})
    from decodery.core.chooser import Seeded

    session = toy.session([1, 0])
    assert draft.propose(session, Budget(9, 9), Seeded(0)).tokens == [2, 0, 1]
    assert draft.propose(session, Budget(9, 1), Seeded(0)).tokens == [2, 1]
    assert draft.propose(session, Budget(2, 9), Seeded(0)).tokens == [2, 0]


def test_the_command(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """Fit, decode with it, and what goes wrong."""
    prompts, file = tmp_path / "prompts.txt", tmp_path / "tree.json"
    prompts.write_text("w5 w9 w12\nw1 w2 w3 w1 w2\n")
    common = ("fit-tree", str(prompts), "-m", tiny, "-n", "24")
    told = json.loads(call(*common, "-o", str(file), "--nodes", "6", "--raw", "--json").stdout)
    held = json.loads(file.read_text())
    assert held | {"template": str(file)} == told | {"format": 1}
    assert (held["prompts"], held["nodes"], len(held["template"]), held["model"]) == (2, 6, 6, told["model"])
    assert held["source"] == str(prompts)
    assert 1 < held["tokens_per_forward"] <= 7
    assert held["tokens"] >= held["steps"] > 0
    assert all(accepted <= offered <= held["steps"] for _, offered, accepted in held["counts"])
    assert "6 nodes" in call(*common, "-o", str(file), "--nodes", "6", "--widest", "3x2", "--limit", "1").stderr

    run = ("run", "w5 w9 w12", "-m", tiny, "-n", "12", "--raw", "--json")
    fitted = json.loads(call(*run, "-d", f"recycling:template={file}").stdout)
    assert fitted["tokens"] == json.loads(call(*run).stdout)["tokens"]
    assert fitted["recipe"] == {"draft": {"recycling": {"template": str(file)}}}

    new = str(tmp_path / "new.json")
    write(file, ((1,),), {})
    for arguments, message in (
        ((*common, "-o", new, "--nodes", "81"), "has 80 nodes to choose from"),
        ((*common, "-o", new, "--nodes", "0"), "greater than or equal to 1"),
        ((*common, "-o", new, "--widest", str(file), "--nodes", "1"), "leaves ranks out"),
        ((*common, "-o", str(tmp_path / "new")), "ends in .json"),
        ((*common, "-o", str(tmp_path / "a" / "b.json")), "no folder"),
        (("fit-tree", str(tmp_path / "none.txt"), "-o", new, "-m", tiny), "no such file"),
    ):
        assert message in call(*arguments, code=2).stderr
    assert sorted(os.listdir(tmp_path)) == ["prompts.txt", "tree.json"]
