"""Programs that run together: one that fails, is cancelled or has a long text is nobody else's affair."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.core.chooser import Seeded
from decodery.core.part import Program
from decodery.core.roles import Guide, Laws
from decodery.core.stats import Stats
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Tensor
from decodery.draft.model import ModelDraft
from decodery.guide.cfg import ClassifierFree
from decodery.guide.temperature import Temperature
from decodery.model.session import Ask, Session
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import Crew, Ended, Failed
from decodery.run.loop import launch
from decodery.run.recipe import Recipe

from ..laws.exact import Count, produced, recipe, variation, wanted
from ..running import counted, together

PROMPT = (0, 1, 0)


def greedy(toy: ToyModel, text: Sequence[int], n: int) -> list[int]:
    words = list(text)
    for _ in range(n):
        words.append(int(toy.lm(tuple(words)).argmax()))
    return words[len(text) :]


# One fails, the others go on


@dataclass
class Breaks(Guide):
    """Raises once the answer has ``after`` tokens."""

    after: int = 3

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        if len(rows.context) - rows.prompt >= self.after:
            raise RuntimeError("broken")
        return logits


@pytest.mark.parametrize("draft", ["none", "ngram:min=1", "model:path=toy,length=2", "model:layers=[0]", "mix"])
def test_one_that_raises_does_not_disturb_the_others(draft: str) -> None:
    toy = ToyModel(vocab=5)
    arena, crew, sessions, found = toy.arena(), Crew(), [], dict[int, list[int]]()
    for i in range(4):
        guides = [Breaks()] if i == 1 else []
        sessions.append(toy.session((*PROMPT, i), arena))
        built = build(Recipe.of(draft, None, guides), toy)  # type: ignore[arg-type]
        crew.add(i, launch(built, sessions[i], Seeded(i), Stop(max_new_tokens=12)))
        found[i] = []
    failed: list[int] = []
    for i, event in crew.run():
        if isinstance(event, Failed):
            assert str(event.error) == "broken"
            failed.append(i)
            session = sessions[1]
            others = {handle for s in sessions for handle in arena.lineage(s.head)}
            own = set(arena.lineage(session.head))
            assert own <= arena.nodes.keys()
            session.close()
            assert not own & (arena.nodes.keys() - others)
        elif isinstance(event, Step):
            found[i] += event.tokens
    assert failed == [1]
    for i in (0, 2, 3):
        assert found[i] == greedy(toy, (*PROMPT, i), 12)
    assert found[1] == greedy(toy, (*PROMPT, 1), len(found[1]))
    assert len(arena.nodes) == sum(session.cached for session in sessions), "no draft of anybody is left"
    for session in sessions:
        session.close()
    arena.check()
    assert not arena.nodes


def test_a_pass_that_fails_for_one_is_made_for_the_others() -> None:
    """The text of one is at the end of the context."""
    toy = ToyModel()
    arena = toy.arena()
    arena.context = 12
    sessions = [toy.session(text, arena) for text in (PROMPT, (0,) * 12, PROMPT)]
    built, crew = build(Recipe.of("ngram:min=1"), toy), Crew()
    for i, session in enumerate(sessions):
        crew.add(i, launch(built, session, Seeded(i), Stop(max_new_tokens=6)))
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    ends: dict[int, Any] = {}
    for i, event in crew.run():
        if isinstance(event, Step):
            found[i] += event.tokens
        else:
            ends[i] = event
    assert isinstance(ends[1], Failed)
    assert isinstance(ends[0], Ended)
    assert isinstance(ends[2], Ended)
    assert found == {0: greedy(toy, PROMPT, 6), 1: [], 2: greedy(toy, PROMPT, 6)}
    for session in sessions:
        session.close()
    assert not arena.nodes


def test_a_drafter_that_cannot_begin_says_so_itself() -> None:
    """Its end is not asked for, so nothing else is raised in place of its own error."""

    class Mute(ModelDraft):
        def open(self, session: Session) -> Session:
            raise RuntimeError("no draft model today")

    toy = ToyModel()
    program = launch(build(recipe(Mute("toy")), toy), toy.session(PROMPT), Seeded(0), Stop(max_new_tokens=2))
    with pytest.raises(RuntimeError, match="no draft model today"):
        list(together([program]))


# Random programs

SPECS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("none", ()),
    ("ngram:min=1,length=3", ()),
    ("jacobi:window=2", ()),
    ("model:path=toy,length=2", ()),
    ("model:layers=[0],length=2", ()),
    ("none", (ClassifierFree(2.0, "cb"),)),
)


class Broken(Exception):
    """What a failing program raises."""


def rows_are_the_table(toy: ToyModel, session: Session, rows: Rows) -> None:
    """Every row of a pass is the toy's after its words."""
    for row in range(len(rows)):
        assert torch.equal(rows.logits[row], toy.lm(tuple(rows.words(row))))


def grow(toy: ToyModel, session: Session, draw: Any, depth: int) -> Program:
    """A program that does at random what programs may do: trees, new nodes, forks, crews of programs on these, failures."""
    start = list(session.tokens)
    try:
        for _ in range(draw(st.integers(1, 3))):
            tree = TokenTree()
            for i in range(draw(st.integers(0, 3))):
                tree.add(draw(st.integers(0, 2)), draw(st.integers(ROOT, i - 1)))
            (rows,) = yield [Ask(session, tree)]
            rows_are_the_table(toy, session, rows)
            assert list(rows.context) == session.tokens
            if len(tree) and draw(st.booleans()):
                kept = draw(st.lists(st.sampled_from(tree.live()), unique=True))
                session.keep(kept)
                if kept:
                    new = tree.add(draw(st.integers(0, 2)), draw(st.sampled_from(kept)))
                    if not tree.ghost[new]:
                        (rows,) = yield [Ask(session, tree, fresh=[new])]
                        rows_are_the_table(toy, session, rows)
                        kept.append(new)
                    at = draw(st.sampled_from([node for node in kept if not tree.ghost[node]]))
                    if depth and draw(st.booleans()):
                        yield from nested(toy, session, tree, at, draw, depth)
                        continue
                    path = list(tree.words(at))
                    session.commit(path)
                    yield Step(tree, rows, Laws()(rows), Verdict(()), path)
                    continue
            if draw(st.integers(0, 9)) == 0:
                raise Broken
            tokens = draw(st.lists(st.integers(0, 2), min_size=1, max_size=2))
            session.commit(tokens)
            yield Step(tree, rows, Laws()(rows), Verdict(()), tokens)
            if draw(st.integers(0, 5)) == 0:
                session.rewind(draw(st.integers(len(start), len(session.tokens))))
    finally:
        session.keep(())


def nested(toy: ToyModel, session: Session, tree: TokenTree, at: int, draw: Any, depth: int) -> Program:
    """Programs on forks of a node; one of the forks may become the session, the others go."""
    forks = [session.fork(at=at if draw(st.booleans()) else ROOT) for _ in range(draw(st.integers(1, 3)))]
    crew = Crew()
    try:
        for i, fork in enumerate(forks):
            crew.add(i, grow(toy, fork, draw, depth - 1))
        while crew:
            rows = yield crew.asks()
            for i, event in crew.tell(rows):
                if isinstance(event, Failed) and not isinstance(event.error, Broken):
                    raise event.error
                if draw(st.integers(0, 5)) == 0:
                    crew.cancel(i if draw(st.booleans()) else draw(st.integers(0, len(forks) - 1)))
        if draw(st.booleans()):
            session.adopt(forks.pop())
    finally:
        crew.close()
        for fork in forks:
            fork.close()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_programs_leave_nothing_and_disturb_nobody(data: Any) -> None:
    """Beside them run ordinary answers, which stay what they are alone."""
    toy = ToyModel(seed=data.draw(st.integers(0, 5)))
    arena, crew = toy.arena(), Crew()
    arena.context = 512
    sessions: dict[int, Session] = {}
    found: dict[int, list[int]] = {}
    expected: dict[int, list[int]] = {}
    texts = st.lists(st.integers(0, 2), min_size=1, max_size=4)
    for i in range(data.draw(st.integers(2, 5))):
        sessions[i] = toy.session(data.draw(texts), arena)
        if data.draw(st.booleans()):
            crew.add(i, grow(toy, sessions[i], data.draw, 2))
        else:
            spec, guides = data.draw(st.sampled_from(SPECS))
            alone = toy.session(sessions[i].tokens)
            built = build(Recipe.of(spec, None, guides), toy)
            run = together([launch(built, alone, Seeded(i), Stop(max_new_tokens=6))])
            expected[i] = [token for _, step in run for token in step.tokens]
            crew.add(i, launch(built, sessions[i], Seeded(i), Stop(max_new_tokens=6)))
            found[i] = []
    cancelled = set()
    for i, event in crew.run():
        if isinstance(event, Failed) and not isinstance(event.error, Broken):
            raise event.error
        if isinstance(event, Step) and i in found:
            found[i] += event.tokens
        if data.draw(st.integers(0, 19)) == 0:
            cancelled.add(i)
            crew.cancel(i)
    for i in expected:
        assert found[i] == expected[i][: len(found[i])]
        assert i in cancelled or found[i] == expected[i]
    arena.check()
    held = {h for s in sessions.values() for one in (s, *s.followers()) for h in arena.lineage(one.head)}
    assert arena.nodes.keys() == held, "only committed text is left"
    for session in sessions.values():
        session.close()
    assert not arena.nodes
    for _, other in arena._beside.values():
        assert not other.nodes


# A long prompt


def test_a_long_prompt_does_not_hold_a_short_one_up() -> None:
    toy = ToyModel()
    arena = toy.arena()
    arena.context = 4096
    long = toy.session([i % 3 for i in range(1500)], arena)
    short = toy.session(PROMPT, arena)
    built, crew = build(Recipe.of("none"), toy), Crew()
    for i, session in enumerate((long, short)):
        crew.add(i, launch(built, session, Seeded(i), Stop(max_new_tokens=8)))
    assert list(crew.tell([])) == [], "the programs begin"
    events = crew.run()
    i, event = next(events)
    assert i == 1
    assert isinstance(event, Step)
    assert long.cached < 1500
    order = [i, *(i for i, event in events if isinstance(event, Step))]
    assert order[:3] == [1, 1, 1], "1500 tokens take four passes"
    assert order.count(0) == order.count(1) == 8
    assert long.tokens[1500:] == greedy(toy, [i % 3 for i in range(1500)], 8)
    assert short.tokens[3:] == greedy(toy, PROMPT, 8)


# Time


@pytest.mark.parametrize("draft", ["none", "model:path=toy,length=3", "model:layers=[0],length=2", "mix"])
def test_the_phases_of_a_batch_are_no_more_than_the_time_it_took(draft: str) -> None:
    """Time is nobody's twice, though all wait for one pass."""

    toy = ToyModel(vocab=5)
    arena = toy.arena()
    counts = counted(arena)
    compute = arena._compute

    def slow(feed: Any) -> Any:
        time.sleep(0.001)
        return compute(feed)

    arena._compute = slow  # type: ignore[method-assign]
    built = build(Recipe.of(draft, None, [Temperature(0.9)]), toy)
    sessions = [toy.session((*PROMPT, i), arena) for i in range(5)]
    stats = [Stats() for _ in sessions]
    start = time.perf_counter()
    programs = [launch(built, session, Seeded(i), Stop(max_new_tokens=10)) for i, session in enumerate(sessions)]
    for i, step in together(programs):
        stats[i].add(step)
    took = time.perf_counter() - start
    told = sum(seconds for one in stats for seconds in one.phases.values())
    assert 0.001 * counts.forwards <= told <= took
    assert {"draft", "constrain", "forward", "guide", "verify", "commit"} == set(stats[0].phases)
    assert all(seconds >= 0 for one in stats for seconds in one.phases.values())


# Companions


class Again(ClassifierFree):
    repeats = True


def test_two_guides_with_companions_are_the_definition() -> None:
    """Each sees its own negative, whatever the other calls its."""
    guides = [Again(2.0, "cb"), Again(1.5, "a"), Temperature(0.9)]
    for draft in ("none", "model:layers=[0],length=1", "ngram:min=1,length=2"):
        toy = ToyModel(seed=3, eos=frozenset({2}))
        built = build(Recipe.of(draft, None, guides), toy)
        law = wanted(toy, built)
        assert variation(law, produced(toy, built, Count())) < 1e-9
        assert variation(law, produced(toy, built, Count(), batch=3)) < 1e-9
        for fewer in (guides[1:], [guides[0], guides[2]], [guides[1], guides[0], guides[2]]):
            other = wanted(toy, build(Recipe.of(draft, None, fewer), toy))
            assert variation(law, other) > 1e-3
    # By hand, the first token after the prompt.
    toy = ToyModel(seed=3)
    p, a, b = (toy.lm(text).log_softmax(-1) for text in (PROMPT, (2, 1), (0,)))
    once = (a + 2.0 * (p - a)).log_softmax(-1)
    expected = ((b + 1.5 * (once - b)) / 0.9).softmax(-1)
    built = build(Recipe.of("none", None, guides), toy)
    law = wanted(toy, built, 1)
    assert [law[token,] for token in range(3)] == pytest.approx(expected.tolist())
