"""Datastores: what they find, and that what is wrong with one is said."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.chooser import Seeded
from decodery.core.errors import BadStore, DecoderyError, PartsClash
from decodery.core.values import Budget
from decodery.draft.datastore import Datastore
from decodery.draft.lib.store import REACH, SEPARATOR, Store, heaviest, index
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe

from .test_cli import call, tiny  # noqa: F401

DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=25), min_size=1, max_size=4).filter(any)


def encode(text: str) -> list[int]:
    return [ord(letter) - 97 for letter in text if letter.isalpha()]


@given(DOCUMENTS)
def test_suffixes_are_sorted(documents: list[list[int]]) -> None:
    store = Store.of(documents, "x")
    tokens = store.tokens.tolist()
    keys = [tokens[i : i + REACH] for i in store.suffixes.tolist()]
    assert keys == sorted(keys)
    assert sorted(store.suffixes.tolist()) == list(range(len(tokens)))


def test_long_repetitions_are_sorted_as_far_as_words_reach() -> None:
    store = Store.of([[1] * 300, [1] * 40 + [0]], "x")
    keys = [store.tokens[i : i + REACH].tolist() for i in store.suffixes.tolist()]
    assert keys == sorted(keys)
    assert store.find([1] * 50)[0] == REACH


@given(DOCUMENTS, st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 6))
def test_find_equals_a_search(documents: list[list[int]], words: list[int], shortest: int, length: int) -> None:
    """The longest end that occurs, all its places, and what follows up to the end of each document."""
    store = Store.of(documents, "x")
    matched, places = store.find(words, shortest)
    for n in range(len(words), shortest - 1, -1):
        wanted = [
            tuple(d[i + n : i + n + length]) for d in documents for i in range(len(d)) if d[i : i + n] == words[-n:]
        ]
        if wanted:
            assert matched == n
            assert Counter(map(tuple, store.following(places, n, length))) == Counter(wanted)
            return
    assert (matched, len(places)) == (0, 0)


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=8), st.integers(1, 9))
def test_the_heaviest_beginnings_are_kept(paths: list[list[int]], nodes: int) -> None:
    tree, shared = heaviest(paths, nodes)
    weight = Counter(tuple(path[:n]) for path in paths for n in range(1, len(path) + 1))
    kept = [tree.words(node) for node in range(len(tree))]
    assert len(kept) == len(set(kept)) == min(nodes, len(weight))
    assert sorted(weight[words] for words in kept) == sorted(weight.values())[-len(kept) :]
    assert shared * max(1, len(paths)) == pytest.approx(sum(weight[words] for words in kept))


@pytest.mark.parametrize("draft", ["datastore:path={}", "suffix:corpus={}"])
def test_a_store_is_opened_once_for_all_requests(draft: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Opening reads all of it, for its checksums."""
    toy, opened = ToyModel(), []
    Store.of([[0, 1, 2, 0]], toy.fingerprint()).write(tmp_path / "store")
    monkeypatch.setattr(Store, "open", lambda path, whole=Store.open: opened.append(path) or whole(path))
    recipe = Recipe.of(draft.format(tmp_path / "store"))
    for _ in range(3):
        assert build(recipe, toy).draft.propose
    assert len(opened) == 1


def test_the_drafter_reads_the_store(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcab" * 9)
    index([tmp_path / "a.txt"], encode, ToyModel().fingerprint(), tmp_path / "store", model="toy")
    toy = ToyModel()
    draft = Datastore(str(tmp_path / "store"), length=4).bind(toy)
    assert draft.propose(toy.session([0, 1]), Budget(64, 64), Seeded(0)).tokens[:3] == [2, 0, 1]
    assert draft.propose(toy.session([0, 1]), Budget(2, 64), Seeded(0)).tokens == [2, 0]
    assert not len(draft.propose(toy.session([1, 1]), Budget(64, 64), Seeded(0)))
    assert len(draft.propose(toy.session([0, 1]), Budget(64, 1), Seeded(0))) == 2  # c, and a where two texts meet


def test_what_is_on_disk_is_what_was_in_memory(tmp_path: Path) -> None:
    made = Store.of([[1, 2, 3, 1, 2], [70000]], "x")
    made.write(tmp_path / "store", documents=2)
    read = Store.open(tmp_path / "store")
    assert isinstance(read.tokens, np.memmap)
    assert read.tokens.tolist() == made.tokens.tolist() == [1, 2, 3, 1, 2, SEPARATOR, 70000, SEPARATOR]
    assert read.suffixes.tolist() == made.suffixes.tolist()
    assert json.loads((tmp_path / "store" / "meta.json").read_text())["documents"] == 2
    assert os.listdir(tmp_path) == ["store"]
    with pytest.raises(BadStore, match="exists"):
        made.write(tmp_path / "store")


def test_a_store_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("decodery.draft.lib.store.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Store.of([[1]], "x").write(tmp_path / "store")
    assert os.listdir(tmp_path) == []


def harm(store: Path, how: str) -> None:
    meta = json.loads((store / "meta.json").read_text())
    if how == "no meta":
        (store / "meta.json").unlink()
    elif how == "no json":
        (store / "meta.json").write_text("{")
    elif how == "a list":
        (store / "meta.json").write_text("[]")
    elif how == "other format":
        (store / "meta.json").write_text(json.dumps(meta | {"format": 99}))
    elif how == "no number":
        (store / "meta.json").write_text(json.dumps(meta | {"tokens": None}))
    elif how == "shorter":
        (store / "tokens.bin").write_bytes((store / "tokens.bin").read_bytes()[:-4])
    elif how == "flipped":
        data = bytearray((store / "suffixes.bin").read_bytes())
        data[0] ^= 1
        (store / "suffixes.bin").write_bytes(data)
    elif how == "missing":
        (store / "suffixes.bin").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no meta", "is no datastore"),
        ("no json", "is no datastore"),
        ("a list", "is no datastore"),
        ("no number", "is no datastore"),
        ("other format", "format 99"),
        ("shorter", "tokens.bin should hold 4 numbers"),
        ("flipped", "suffixes.bin is not what was written"),
        ("missing", "suffixes.bin should hold"),
    ],
)
def test_a_broken_store_is_named(tmp_path: Path, how: str, message: str) -> None:
    Store.of([[1, 2, 3]], "x").write(tmp_path / "store")
    harm(tmp_path / "store", how)
    with pytest.raises(BadStore, match=message):
        Store.open(tmp_path / "store")


def test_a_store_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    Store.of([[1, 2, 3]], "another").write(tmp_path / "store")
    with pytest.raises(PartsClash, match="another tokenizer"):
        build(Recipe.of(f"datastore:{tmp_path / 'store'}"), ToyModel())
    with pytest.raises(BadStore, match="there is no datastore at"):
        build(Recipe.of(f"datastore:{tmp_path / 'none'}"), ToyModel())


@pytest.mark.parametrize(
    "spec",
    [
        "datastore",
        "datastore:path=x,min=0",
        "datastore:path=x,max=33",
        "datastore:path=x,min=9,max=8",
        {"datastore": {"path": 3}},
        {"datastore": {"path": {"tokens": [1]}}},
    ],
)
def test_bad_parameters(spec: Any) -> None:
    with pytest.raises(DecoderyError, match="datastore"):
        Recipe.of(spec)


def test_the_command(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    """Index, decode with it, and what goes wrong."""
    text, store = tmp_path / "text.txt", tmp_path / "store"
    answer = json.loads(call("run", "w5 w9 w12", "-m", tiny, "-n", "12", "--raw", "--json").stdout)
    text.write_text("w5 w9 w12 " + answer["text"])
    facts = json.loads(call("index", str(text), "-o", str(store), "-m", tiny, "--json").stdout)
    assert facts["tokens"] > 12
    again = json.loads(
        call("run", "w5 w9 w12", "-m", tiny, "-n", "12", "--raw", "--json", "-d", f"datastore:{store}").stdout
    )
    assert again["tokens"] == answer["tokens"]
    assert again["stats"]["accepted"] > 0
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"\xe4\xf6")
    new = str(tmp_path / "new")
    assert "exists" in call("index", str(text), "-o", str(store), "-m", tiny, code=2).stderr
    assert "is empty" in call("index", str(tmp_path / "empty.txt"), "-o", new, "-m", tiny, code=2).stderr
    assert "not text in UTF-8" in call("index", str(tmp_path / "latin.txt"), "-o", new, "-m", tiny, code=2).stderr
    assert "no such text file" in call("index", str(tmp_path / "none.txt"), "-o", new, "-m", tiny, code=2).stderr
    assert "no folder" in call("index", str(text), "-o", str(tmp_path / "a" / "b"), "-m", tiny, code=2).stderr
    assert sorted(os.listdir(tmp_path)) == ["empty.txt", "latin.txt", "store", "text.txt"]


def test_pieces_of_a_long_text_are_the_whole_text(tmp_path: Path) -> None:
    for text in ("ab\n" * 60_000, "a" * 150_000 + "b"):
        (tmp_path / "long.txt").write_text(text)
        store = index([tmp_path / "long.txt"], encode, "x", tmp_path / f"store{len(text)}")
        assert store.tokens.tolist()[:-1] == encode(text)
