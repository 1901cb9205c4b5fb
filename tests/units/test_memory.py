"""Saved memories: what comes back is what was learnt, and what is wrong with a file is said."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import decodery
from decodery.core.chooser import Seeded
from decodery.core.errors import BadMemory, DecoderyError
from decodery.core.part import Model, ready
from decodery.core.roles import Drafter
from decodery.core.stop import Stop
from decodery.core.tally import Tally
from decodery.draft.aded import Aded
from decodery.draft.dyspec import DySpec
from decodery.draft.lib.memory import load_memory, remembered, save_memory
from decodery.draft.lib.skip_search import SkipSearch
from decodery.draft.lib.triples import Triples
from decodery.draft.mix import Mix
from decodery.draft.ngram import NGram
from decodery.draft.recycling import Recycling, Successors
from decodery.draft.specdec_plus_plus import SpecDecPlusPlus
from decodery.draft.suffix import Suffix
from decodery.draft.swift import Swift
from decodery.model.toy import ToyModel
from decodery.run.build import build

from ..laws.exact import recipe
from ..running import speculate, together
from .test_cli import call, tiny  # noqa: F401

TOY = ToyModel(vocab=6, seed=3)
LEARNERS: list[Any] = [
    Recycling(),
    Aded(),
    Suffix(),
    SpecDecPlusPlus("toy"),
    DySpec("toy"),
    Swift(skip=0.5, interval=1, window=2, patience=9),
]
FILES = {"me", "me.lock"}


def learnt(draft: Drafter, model: ToyModel = TOY) -> dict[str, Any]:
    """What a drafter has learnt with a model's tokenizer."""
    lore = ready(draft, model).lore  # type: ignore[arg-type]
    assert lore is not None
    return {name: array.tolist() for name, array in lore.arrays().items()}


def decoded(draft: Drafter, prompt: Any = (0, 1, 2), length: int = 24) -> list[Any]:
    """The trees of a decoding; ``draft`` learns from it."""
    built = build(recipe(draft), TOY)
    session, stop = TOY.session(prompt), Stop(max_new_tokens=length)
    parts = (copy.copy(built.draft), built.verify, built.laws, built.constrain)
    program = speculate(session, *parts, Seeded(1), stop, built.want)
    return [(step.tree.tokens, step.tree.parents) for _, step in together([program])]


@pytest.mark.parametrize("draft", LEARNERS, ids=lambda draft: type(draft).__name__)
def test_a_loaded_drafter_goes_on_as_the_saved_one(draft: Drafter, tmp_path: Path) -> None:
    """Tree by tree; the file is as large as was said, and nothing else is left in the folder."""
    fresh, first = copy.deepcopy(draft), copy.deepcopy(draft)
    cold = decoded(first)
    size = decodery.save_memory(first, TOY, tmp_path / "me.memory")  # type: ignore[arg-type]
    [known] = decodery.load_memory(fresh, TOY, tmp_path / "me.memory")  # type: ignore[arg-type]
    name = decodery.run.registry.name_of(draft)[1]
    assert known.split()[0] == name
    assert size == (tmp_path / "me.memory").stat().st_size
    assert {*os.listdir(tmp_path)} == {"me.memory", "me.memory.lock"}
    warm = decoded(first)
    assert decoded(fresh) == warm
    assert learnt(fresh) == learnt(first) != learnt(draft)
    assert warm != cold or name == "swift"  # a toy model answers alike without any layers


@pytest.mark.parametrize("draft", [Recycling(), Aded(), Suffix()], ids=lambda draft: type(draft).__name__)
def test_memory_saves_forwards(draft: Drafter, tmp_path: Path) -> None:
    """The card: the second run over one prompt takes fewer forwards than the first; also through a file."""
    first, fresh = copy.deepcopy(draft), copy.deepcopy(draft)
    cold = len(decoded(first, length=60))
    save_memory(first, TOY, tmp_path / "m")
    load_memory(fresh, TOY, tmp_path / "m")
    assert len(decoded(fresh, length=60)) < cold


def test_users_are_kept_apart(tmp_path: Path) -> None:
    """What one object learnt, another never sees, unless the file is loaded."""
    anna, bert = Recycling(), Recycling()
    decoded(anna)
    assert not learnt(bert)["tokens"]
    save_memory(anna, TOY, tmp_path / "anna")
    load_memory(bert, TOY, tmp_path / "anna")
    assert learnt(bert) == learnt(anna)
    before = learnt(anna)
    decoded(bert, (5, 4, 3))
    assert learnt(anna) == before != learnt(bert)


def test_one_file_serves_all_drafters_of_a_user(tmp_path: Path) -> None:
    """A drafter finds its own by name, inside a mix as well, and leaves what others kept."""
    file, recycling, aded = tmp_path / "me", Recycling(), Aded()
    decoded(recycling)
    decoded(aded)
    save_memory(recycling, TOY, file)
    save_memory(aded, TOY, file)
    mix = Mix((NGram(), Recycling(), Mix((Recycling(k=2), Aded(k=2, contexts=3)))))
    assert sorted(load_memory(mix, TOY, file)) == ["aded", "recycling"]
    assert learnt(mix.parts[1]) == learnt(recycling)
    inner = mix.parts[2].inner()
    assert not learnt(inner[0])["tokens"]
    assert learnt(inner[1])["words"] == learnt(aded)["words"][-3:]
    assert len(learnt(inner[1])["tokens"][0]) == 2
    decoded(mix)
    save_memory(mix, TOY, file)
    again = Mix((Recycling(), Recycling(k=2)))
    assert load_memory(again, TOY, file) == ["recycling", "recycling#2"]
    assert learnt(again.parts[1]) == learnt(inner[0])


def test_the_documented_bytes(tmp_path: Path) -> None:
    """4 (k + 1) a token of recycling, 8 + 12 k a context of aded, beside a header of less than 700."""
    for draft, each, count in ((Recycling(), 36, "tokens"), (Aded(), 152, "words")):
        decoded(draft, length=60)
        size = save_memory(draft, TOY, tmp_path / type(draft).__name__)
        assert 0 <= size - each * len(learnt(draft)[count]) < 700


def test_errors(tmp_path: Path) -> None:
    draft, file = Recycling(), tmp_path / "me"
    decoded(draft)
    with pytest.raises(BadMemory, match="no memory file at"):
        load_memory(draft, TOY, file)
    save_memory(draft, TOY, file)
    with pytest.raises(BadMemory, match="another tokenizer"):
        load_memory(draft, ToyModel(vocab=5), file)
    with pytest.raises(BadMemory, match="another tokenizer"):
        save_memory(draft, ToyModel(vocab=5), file)
    with pytest.raises(BadMemory, match="'ngram' has no memory"):
        load_memory(NGram(), TOY, file)
    with pytest.raises(BadMemory, match=r"cannot write .* there is no folder"):
        save_memory(draft, TOY, tmp_path / "no" / "folder")
    file.write_bytes(b"hello")
    for verb in (load_memory, save_memory):  # neither read nor overwritten
        with pytest.raises(BadMemory, match="no memory file, or damaged"):
            verb(draft, TOY, file)
    save_file({"a": np.zeros(2)}, file)
    with pytest.raises(BadMemory, match="no memory of drafters"):
        load_memory(draft, TOY, file)
    save_file({"a": np.zeros(2)}, file, {"decodery-memory": "1"})
    with pytest.raises(BadMemory, match="written by another version of Decodery; remove it"):
        load_memory(draft, TOY, file)
    with pytest.raises(BadMemory, match=r"'swift' does not fit the model: .*of 2 layers"):
        load_memory(Swift(), ToyModel(depth=2), file)
    assert {*os.listdir(tmp_path)} == FILES


class Odd(Recycling):
    """Says something else than it should."""

    said: Any = None

    def new_lore(self, model: Model) -> Successors:
        said, lore = self.said, super().new_lore(model)
        lore.arrays = lambda: said  # type: ignore[method-assign]
        return lore


@pytest.mark.parametrize(
    "said",
    [
        {"tokens": np.zeros(2, np.uint32), "after": np.zeros((3, 8), np.uint32)},
        {"tokens": np.zeros(2, np.uint32), "after": np.zeros(2, np.uint32)},
        {"tokens": np.zeros(2, np.uint32), "after": np.zeros((2, 8))},
        {"tokens": np.zeros(2, np.uint32)},
        {"tokens": np.full(2, 6, np.uint32), "after": np.zeros((2, 8), np.uint32)},
    ],
)
def test_what_is_no_recycling_memory_is_refused(said: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Also where the checksum is right: other arrays, other lengths, token ids beyond the vocabulary."""
    monkeypatch.setattr("decodery.draft.lib.memory.name_of", lambda _: ("draft", "recycling"))
    odd = Odd()
    odd.said = said
    save_memory(odd, TOY, tmp_path / "m")
    with pytest.raises(BadMemory, match=r"is not one of the draft part 'recycling'|is damaged"):
        load_memory(Recycling(), TOY, tmp_path / "m")


@pytest.mark.parametrize("weights", [[[0.0]], [[np.nan]], [[-1.0]]])
def test_what_is_no_aded_memory_is_refused(weights: Any) -> None:
    arrays = {"words": np.zeros((1, 2), np.uint32), "tokens": np.zeros((1, 1), np.uint32)}
    with pytest.raises(ValueError, match="not positive"):
        Triples(1, 9).merge(arrays | {"weights": np.array(weights)}, {})


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]]),
        ([[1.0]], [[1.0, 2.0]] * 2),
        ([[1.0]], [[2.0, 1.0]]),
        ([[1.0]], [[-1.0, 1.0]]),
        ([[1.0]], [[np.nan, 1.0]]),
        ([[1.0]], [[1.0, 1e18]]),
        ([[np.inf]], [[1.0, 2.0]]),
    ],
)
def test_what_is_no_tally_is_refused(keys: Any, seen: Any) -> None:
    with pytest.raises(ValueError, match="not counts"):
        Tally(width=1).merge({"keys": np.array(keys), "seen": np.array(seen)}, {})


@pytest.mark.parametrize(("sets", "scores"), [([[1.0]], [2.0]), ([[1.0, 1.0]], [0.5]), ([[0.0, 4.0]], [0.5])])
def test_what_is_no_search_of_swift_is_refused(sets: Any, scores: Any) -> None:
    with pytest.raises(ValueError, match=r"not sets|4 units"):
        SkipSearch(4, frozenset({0, 1})).merge({"sets": np.array(sets), "scores": np.array(scores)}, {})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(drawn=st.data())
def test_a_damaged_file_is_refused_in_words(drawn: Any, tmp_path: Path) -> None:
    """Any byte changed, any part missing, anything appended: a sentence, never another error and never a wrong memory."""
    good = tmp_path / "good"
    if not good.exists():
        draft = Mix((Recycling(), Aded(), SpecDecPlusPlus("toy")))
        decoded(draft.parts[0])
        decoded(draft.parts[1])
        save_memory(draft, TOY, good)
    whole = good.read_bytes()
    where = drawn.draw(st.one_of(st.integers(0, 900), st.integers(0, len(whole) - 1)))
    how = drawn.draw(st.sampled_from(["change", "cut", "drop", "add"]))
    byte = bytes([drawn.draw(st.integers(0, 255).filter(lambda b: b != whole[where]))])
    if how == "change":
        bad = whole[:where] + byte + whole[where + 1 :]
    else:
        rest = {"cut": b"", "drop": whole[where + 1 :], "add": byte + whole[where:]}[how]
        bad = whole[:where] + rest
    (tmp_path / "bad").write_bytes(bad)
    fresh = Mix((Recycling(), Aded(), SpecDecPlusPlus("toy")))
    with pytest.raises(DecoderyError):
        load_memory(fresh, TOY, tmp_path / "bad")


def test_a_memory_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    draft, file = Recycling(), tmp_path / "me"
    decoded(draft)
    save_memory(draft, TOY, file)
    before = file.read_bytes()
    decoded(draft, (3, 4, 5))
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_memory(draft, TOY, file)
    assert file.read_bytes() == before
    assert {*os.listdir(tmp_path)} == FILES


def test_an_interrupted_answer_is_remembered(tmp_path: Path) -> None:
    draft = Recycling()

    def answer() -> None:
        with remembered(draft, TOY, tmp_path / "me"):
            decoded(draft)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer()
    load_memory(again := Recycling(), TOY, tmp_path / "me")
    assert learnt(again) == learnt(draft)


def test_the_option(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    file = str(tmp_path / "me")
    common = ("-m", tiny, "-n", "24", "--raw", "--json", "-d", "recycling", "--memory", file)
    first = json.loads(call("run", "w5 w9 w12", *common).stdout)
    again = json.loads(call("run", "w5 w9 w12", *common).stdout)
    assert again["tokens"] == first["tokens"]
    assert again["stats"]["forwards"] < first["stats"]["forwards"]
    assert "keeps nothing" in call("run", "w5", "-m", tiny, "-d", "ngram", "--memory", file, code=2).stderr
    before = Path(file).stat().st_size
    said = "w1 w2 w3\n/guide repetition:1.2\nw4 w5 w6\n/quit\n"
    call("chat", "-m", tiny, "-d", "recycling", "-n", "6", "--memory", file, input=said)
    assert Path(file).stat().st_size > before
