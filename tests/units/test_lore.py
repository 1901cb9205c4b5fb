"""What drafters learn, shared: by copies, by threads, by processes with one file; never by models of other tokenizers."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.chooser import Seeded
from decodery.core.errors import BadMemory
from decodery.core.part import ready
from decodery.core.roles import Drafter
from decodery.core.stop import Stop
from decodery.core.tally import Tally
from decodery.core.values import NO_TOKEN
from decodery.draft.aded import Aded
from decodery.draft.cascade import Cascade
from decodery.draft.dyspec import DySpec
from decodery.draft.lib.earlier_texts import Past, Text
from decodery.draft.lib.memory import load_memory, save_memory
from decodery.draft.lib.skip_search import SkipSearch
from decodery.draft.lib.triples import Triples
from decodery.draft.mix import Mix
from decodery.draft.none import NoDraft
from decodery.draft.recycling import Recycling, Successors
from decodery.draft.specdec_plus_plus import SpecDecPlusPlus
from decodery.draft.suffix import Suffix
from decodery.draft.swift import Swift
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch

from ..laws.exact import recipe

TOY = ToyModel(vocab=40, seed=3)
SWIFT = Swift(skip=0.5, interval=1, window=2, bayes=3)
LEARNERS: list[Any] = [Recycling(), Aded(), Suffix(), SpecDecPlusPlus("toy"), DySpec("toy"), SWIFT]


def named(draft: Drafter) -> str:
    return type(draft).__name__


def answer(draft: Drafter, prompt: list[int], model: ToyModel = TOY, length: int = 30) -> list[int]:
    """A decoding, from which ``draft`` learns."""
    program = launch(build(recipe(draft), model), model.session(prompt), Seeded(1), Stop(max_new_tokens=length))
    return [token for step in steps(program) for token in step.tokens]


def arrays(draft: Drafter, model: ToyModel = TOY) -> dict[str, list[Any]]:
    """What a drafter has learnt with a model's tokenizer."""
    lore = ready(draft, model).lore
    assert lore is not None
    return {name: array.tolist() for name, array in lore.arrays().items()}


def entries(draft: Drafter) -> set[Any]:
    """What was learnt, without the values that several processes may have learnt differently."""
    known = arrays(draft)
    if "after" in known:
        return set(known["tokens"])
    if "scores" in known:
        return {(*chosen, score) for chosen, score in zip(known["sets"], known["scores"], strict=True)}
    if "seen" in known or "words" in known:
        return {tuple(key) for key in known.get("keys", known.get("words", []))}
    return {pair for pair in zip(known["tokens"], known["tokens"][1:], strict=False) if NO_TOKEN not in pair}


def seen(draft: Drafter) -> float:
    """How many observations a drafter that counts has made."""
    return sum(times for _, times in arrays(draft).get("seen", ()))


# ---- one object, its copies, and models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [*LEARNERS, Mix((Recycling(), Suffix()))], ids=named)
def test_models_of_another_tokenizer_never_mix(draft: Drafter) -> None:
    """One object serves both; each model finds what it taught, and a third begins with nothing."""
    draft, other = copy.deepcopy(draft), ToyModel(vocab=9, seed=4)
    answer(draft, [0, 1, 2])
    mine, theirs = ready(draft, TOY), ready(draft, other)
    assert mine.lore is not theirs.lore
    before = pickle.dumps(mine.lore)
    answer(draft, [2, 1, 0], other)
    assert pickle.dumps(mine.lore) == before
    assert ready(draft, other).lore is theirs.lore
    assert ready(draft, replace(TOY, seed=8)).lore is mine.lore  # the same tokenizer


def test_swift_searches_apart_for_each_depth() -> None:
    draft = copy.deepcopy(SWIFT)
    assert ready(draft, TOY).lore is not ready(draft, ToyModel(vocab=40, depth=6)).lore
    assert ready(draft, TOY).lore is ready(draft, TOY).lore


def test_another_object_has_lore_of_its_own() -> None:
    """Also where it was made from one that has learnt: a deep copy takes it along, and both go on apart."""
    draft = Recycling()
    answer(draft, [0, 1, 2])
    twin = copy.deepcopy(draft)
    assert arrays(twin) == arrays(draft)
    before = arrays(draft)
    answer(twin, [30, 31, 32])
    assert arrays(draft) == before != arrays(twin)
    assert not arrays(Recycling())["tokens"]
    assert not arrays(replace(draft, k=3))["tokens"]
    assert repr(draft) == repr(Recycling())
    assert draft == Recycling()


def test_a_drafter_inside_another_learns_with_its_own_model(tmp_path: Path) -> None:
    """A cascade's inner drafter drafts for the draft model; its memory is found by the target's file."""
    draft = Cascade("toy", inner_draft=Recycling())
    answer(draft, [0, 1, 2])
    save_memory(draft, TOY, tmp_path / "me")  # type: ignore[arg-type]
    again = Cascade("toy", inner_draft=Recycling())
    assert load_memory(again, TOY, tmp_path / "me") == ["recycling"]  # type: ignore[arg-type]
    assert arrays(again.inner_draft) == arrays(draft.inner_draft)
    assert arrays(again.inner_draft)["tokens"]


# ---- threads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*work: Callable[[], object]) -> None:
    """Run all in threads of their own; raise what the first of them raises."""
    errors: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "draft",
    [
        *LEARNERS,
        Aded(contexts=12),
        Suffix(recall=60),
        Mix((Recycling(k=3), Aded(contexts=20), Suffix(recall=80))),
    ],
    ids=named,
)
def test_threads_may_share_a_drafter(draft: Drafter, tmp_path: Path) -> None:
    """Two decode, a third saves and loads all the while: nobody fails, and every answer is the target's own."""
    draft, done = copy.deepcopy(draft), Event()
    prompts = [[[i, (7 * i + 3) % 40, 39 - i] for i in range(start, 40, 4)] for start in (0, 2)]
    plain = [[answer(NoDraft(), prompt) for prompt in some] for some in prompts]
    found: list[list[list[int]]] = [[], []]

    def decode(which: int) -> None:
        for prompt in prompts[which]:
            found[which].append(answer(draft, prompt))

    def decode_all() -> None:
        try:
            at_once(lambda: decode(0), lambda: decode(1))
        finally:
            done.set()

    def keep() -> None:
        while not done.is_set():
            save_memory(draft, TOY, tmp_path / "me")  # type: ignore[arg-type]
            load_memory(draft, TOY, tmp_path / "me")  # type: ignore[arg-type]

    at_once(decode_all, keep)
    assert found == plain
    again = copy.deepcopy(draft)
    save_memory(draft, TOY, tmp_path / "me")  # type: ignore[arg-type]
    load_memory(again, TOY, tmp_path / "me")  # type: ignore[arg-type]


@pytest.mark.usefixtures("hasty")
def test_no_observation_of_a_thread_is_lost() -> None:
    tally: Tally[tuple[int]] = Tally(width=1)

    def book() -> None:
        for i in range(3000):
            tally.book((i % 3,), 1.0)

    at_once(book, book, book)
    assert tally.known == {(i,): (3000.0, 3000.0) for i in range(3)}


@pytest.mark.usefixtures("hasty")
def test_a_search_of_two_threads_scores_what_it_tried() -> None:
    search = SkipSearch(8, frozenset({0, 1}), bayes=4)

    def look() -> None:
        for i in range(60):
            chosen = search.propose(i / 60)
            search.learn(chosen, sum(chosen) / 16)

    at_once(look, look)
    assert len(search.tried) == len(search.scores) == 120
    assert search.scores == [sum(chosen) / 16 for chosen in search.tried]
    assert search.score == max(search.scores)


# ---- processes with one file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", LEARNERS, ids=named)
def test_two_processes_with_one_file_lose_nothing(draft: Any, tmp_path: Path) -> None:
    """Both load, both learn, both save; the later one takes up what the earlier one learnt."""
    anna, bert, alone = (copy.deepcopy(draft) for _ in range(3))
    answer(alone, [5, 6, 7], length=6)
    save_memory(alone, TOY, tmp_path / "me")  # type: ignore[arg-type]
    for one in (anna, bert):
        load_memory(one, TOY, tmp_path / "me")  # type: ignore[arg-type]
    for one, prompt in ((anna, [0, 1, 2]), (bert, [30, 31, 32])):
        answer(one, prompt, length=6)
    both = entries(anna) | entries(bert)
    assert arrays(anna) != arrays(bert)
    times = seen(anna) + seen(bert) - seen(alone)
    for one in (anna, bert):
        save_memory(one, TOY, tmp_path / "me")  # type: ignore[arg-type]
    load_memory(fresh := copy.deepcopy(draft), TOY, tmp_path / "me")  # type: ignore[arg-type]
    assert entries(fresh) >= both
    assert seen(fresh) == times
    assert entries(bert) == entries(fresh)
    size = (tmp_path / "me").stat().st_size
    for one in (bert, fresh, bert):  # nothing was learnt: nothing changes
        save_memory(one, TOY, tmp_path / "me")  # type: ignore[arg-type]
    assert (tmp_path / "me").stat().st_size == size
    assert arrays(bert) == arrays(fresh)


def tables(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[int, Any]]:
    return st.dictionaries(st.integers(0, 9), values, max_size=8)


@given(tables(st.integers(0, 9)), tables(st.integers(0, 9)), tables(st.integers(0, 9)))
def test_a_table_takes_what_changed_elsewhere_and_keeps_what_changed_here(old: Any, here: Any, there: Any) -> None:
    def of(table: Any) -> Successors:
        return Successors(2, known={key: [value] for key, value in table.items()})

    mine, theirs = of(old | here), of(old | there)
    mine.merge(theirs.arrays(), of(old).arrays())
    changed = {key: value for key, value in here.items() if old.get(key) != value}
    assert mine.known == of(old | there | changed).known
    assert [*mine.known][len(mine.known) - len(changed) :] == [key for key in {**old, **here} if key in changed]


@given(*[tables(st.integers(1, 5)) for _ in range(3)])
def test_counts_of_two_processes_add_up(old: Any, here: Any, there: Any) -> None:
    """Only what each saw since the file was read; where old observations fade, those seen here stand."""

    def booked(*counts: Any) -> Tally[tuple[int]]:
        tally: Tally[tuple[int]] = Tally(width=1)
        for count in counts:
            for key, times in count.items():
                for i in range(times):
                    tally.book((key,), i % 2)
        return tally

    mine = booked(old, here)
    mine.merge(booked(old, there).arrays(), booked(old).arrays())
    assert mine.known == booked(old, here, there).known
    fading = Tally(width=1, keep=0.9, known=booked(old, here).known)
    fading.merge(booked(old, there).arrays(), booked(old).arrays())
    assert all(0 <= hits <= times for hits, times in fading.known.values())


def test_what_comes_together_stays_within_its_bounds() -> None:
    """What was learnt last stays: here first, then in the file, then what only this object still had."""
    own = Triples(2, 4, known={(i,): {0: 1.0} for i in (1, 2, 3)})
    since = Triples(9, 9, known={(i,): {0: 1.0} for i in (1, 2)})
    theirs = Triples(9, 9, known={(i,): {7: 1.0, 8: 2.0, 9: 3.0} for i in (2, 5, 6)})
    own.merge(theirs.arrays(), since.arrays())
    assert own.known == {(2,): {9: 3.0, 8: 2.0}, (5,): {9: 3.0, 8: 2.0}, (6,): {9: 3.0, 8: 2.0}, (3,): {0: 1.0}}
    assert [*own.known][-1] == (3,)
    past = Past(7, texts=[Text([1, 2, 3])])
    past.merge(Past(99, texts=[Text([4, 5]), Text([6, 7, 8])]).arrays(), {})
    assert [text.tokens for text in past.texts] == [[5], [6, 7, 8], [1, 2, 3]]
    search = SkipSearch(4, frozenset({0}))
    many = {"sets": np.full((2500, 1), 1.0), "scores": np.linspace(0, 1, 2500)}
    search.merge(many, {})
    assert (len(search.tried), search.score, search.best, search.idle) == (2000, 1.0, frozenset({1}), 0)


def test_a_text_is_taken_up_once() -> None:
    """Neither when it is read again, nor when another process cut it to fit, nor when it grew here meanwhile."""
    past = Past(99)
    held = Past(99, texts=[Text([1, 2, 3, 4]), Text([5, 6])]).arrays()
    past.merge(held, {})
    past.texts[-1].tokens.append(7)
    for theirs in (held, Past(99, texts=[Text([3, 4]), Text([5, 6])]).arrays()):
        past.merge(theirs, held)
    assert [text.tokens for text in past.texts] == [[1, 2, 3, 4], [5, 6, 7]]


def test_one_object_and_two_files_and_a_file_that_went(tmp_path: Path) -> None:
    """Each file gets all that is known; what was counted goes into each once."""
    draft = SpecDecPlusPlus("toy")
    answer(draft, [0, 1, 2])
    known = arrays(draft)
    for name in ("one", "two", "one", "two"):
        save_memory(draft, TOY, tmp_path / name)  # type: ignore[arg-type]
        assert arrays(draft) == known
    (tmp_path / "one").unlink()
    save_memory(draft, TOY, tmp_path / "one")  # type: ignore[arg-type]
    load_memory(again := SpecDecPlusPlus("toy"), TOY, tmp_path / "one")  # type: ignore[arg-type]
    assert arrays(again) == arrays(draft) == known


def test_a_save_that_fails_counts_nothing_twice(tmp_path: Path, monkeypatch: Any) -> None:
    anna, bert = SpecDecPlusPlus("toy", min=3, max=3), SpecDecPlusPlus("toy", min=3, max=3)
    answer(anna, [0, 1, 2])
    answer(bert, [30, 31, 32])
    times = sum(row[1] for one in (anna, bert) for row in arrays(one)["seen"])
    save_memory(anna, TOY, tmp_path / "me")  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        for _ in range(2):
            with pytest.raises(BadMemory, match="the disk is full"):
                save_memory(bert, TOY, tmp_path / "me")  # type: ignore[arg-type]
    save_memory(bert, TOY, tmp_path / "me")  # type: ignore[arg-type]
    load_memory(fresh := SpecDecPlusPlus("toy"), TOY, tmp_path / "me")  # type: ignore[arg-type]
    assert sum(row[1] for row in arrays(fresh)["seen"]) == times


def learns(path: Path, starts: list[int], rounds: int) -> None:
    """A process: it loads, saves after each answer, and at last writes down what it learnt."""
    draft = Mix((Recycling(), Aded(), Suffix()))
    if path.exists():
        load_memory(draft, TOY, path)  # type: ignore[arg-type]
    for start in starts * rounds:
        answer(draft, [start, start + 1, start + 2], length=8)
        save_memory(draft, TOY, path)  # type: ignore[arg-type]
    path.with_name(f"learnt {starts[0]}").write_bytes(pickle.dumps([entries(part) for part in draft.parts]))


def test_processes_that_save_at_once_keep_the_union_and_killed_ones_a_readable_file(tmp_path: Path) -> None:
    """Two processes with one memory file do not lose what one learnt, and no kill leaves a broken file or a lock."""
    path, fork = tmp_path / "me", multiprocessing.get_context("fork")

    def held() -> list[set[Any]]:
        fresh = Mix((Recycling(), Aded(), Suffix()))
        load_memory(fresh, TOY, path)  # type: ignore[arg-type]
        return [entries(part) for part in fresh.parts]

    workers = [fork.Process(target=learns, args=(path, starts, 1)) for starts in ([0, 4, 8, 12], [20, 24, 28, 32])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    both = held()
    for start in (0, 20):
        learnt = pickle.loads((tmp_path / f"learnt {start}").read_bytes())
        assert all(mine >= theirs for mine, theirs in zip(both, learnt, strict=True))
    for wait in (0.05, 0.11, 0.17, 0.23, 0.31):
        worker = fork.Process(target=learns, args=(path, [1, 2, 3], 999))
        worker.start()
        time.sleep(wait)
        worker.kill()
        worker.join()
        before, both = both, held()
        assert all(mine >= theirs for mine, theirs in zip(both, before, strict=True))
    answer(last := Recycling(), [0, 1, 2])
    save_memory(last, TOY, path)  # type: ignore[arg-type]
    assert {file.name for file in tmp_path.iterdir()} == {"me", "me.lock", "learnt 0", "learnt 20"}
