"""Beam search: brute force on toys, transformers on tiny networks, nothing left in the arena."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from decodery.constrain.free import Free
from decodery.constrain.regex import Regex
from decodery.core.chooser import Seeded
from decodery.core.errors import BadLogits, DecoderyError
from decodery.core.part import Program
from decodery.core.roles import Constraint, Guide, Laws
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.text import TextStream
from decodery.core.values import LOGITS, Candidate, Rows, Site, Tensor, Want
from decodery.draft.none import NoDraft
from decodery.guide.cfg import ClassifierFree
from decodery.guide.no_repeat_ngram import NoRepeatNGram
from decodery.guide.repetition import Repetition
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.snapshots import StateArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.toy import ToyModel
from decodery.model.turn import forward
from decodery.run.recipe import Recipe
from decodery.search.beam import Beam
from decodery.verify.greedy import Greedy

from ..running import counted, speculate, together
from ..running import search as run_search

PROMPT = (0, 1, 0)
Words = tuple[int, ...]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def free(toy: ToyModel) -> Callable[[Words], Tensor]:
    """The model's own answers after the prompt."""
    return lambda words: toy.lm((*PROMPT, *words))


def until(length: int, *ends: Words) -> Callable[[Words], bool]:
    """Whether an answer has this length or one of these ends."""
    return lambda words: len(words) == length or any(words[-len(end) :] == end for end in ends)


def program(
    beam: Beam, session: Session, stop: Stop, guides: Sequence[Guide] = (), constrain: Constraint | None = None
) -> Program:
    return run_search(beam, session, guides, constrain or Free(), Seeded(0), stop)


def search(beam: Beam, session: Session, stop: Stop, *guides: Guide, constrain: Constraint | None = None) -> list[Step]:
    return [step for _, step in together([program(beam, session, stop, guides, constrain)])]


def brute(law: Callable[[Words], Tensor], ends: Callable[[Words], bool], penalty: float) -> list[Candidate]:
    """Every answer there is, by the definition, best first."""
    found: list[Candidate] = []

    def follow(words: Words, total: float) -> None:
        if ends(words):
            found.append(Candidate(words, total / len(words) ** penalty))
            return
        for token, log in enumerate(law(words).log_softmax(-1).tolist()):
            if log > -math.inf:
                follow((*words, token), total + log)

    follow((), 0.0)
    return sorted(found, key=lambda one: -one.score)


def same(ours: Sequence[Candidate], theirs: Sequence[Candidate], tolerance: float = 1e-9) -> None:
    assert [one.tokens for one in ours] == [one.tokens for one in theirs]
    assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=tolerance)


@dataclass
class Spy(Guide):
    """Checks what guides are told, and counts."""

    session: Session = field(default_factory=lambda: ToyModel().session())
    lm: Any = None
    seen: list[int] = field(default_factory=list)

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        assert rows.prompt == len(PROMPT)
        assert list(rows.context) == list(PROMPT)
        for row in range(len(rows)):
            assert torch.equal(logits[row], self.lm(tuple(rows.words(row))))
        leaves = {tuple(rows.words(row)) for row in range(len(rows))}
        above = {words[:n] for words in leaves for n in range(1, len(words) + 1)}
        assert len(self.session.arena.nodes) == len(above), (
            "shared beginnings are stored once, what was dropped is gone"
        )
        self.seen.append(len(rows))
        return logits


# Brute force


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("eos", [frozenset(), frozenset({2}), frozenset({0, 2})], ids=["open", "ends", "two ends"])
@pytest.mark.parametrize("length", [1, 3, 4])
def test_full_width_is_brute_force(length: int, eos: frozenset[int], penalty: float) -> None:
    for seed in range(4):
        toy = ToyModel(seed=seed, eos=eos, order=5)
        session, stop = toy.session(PROMPT), Stop(eos, length)
        steps = search(Beam(3**length, penalty), session, stop)
        every = brute(free(toy), until(length, *((e,) for e in eos)), penalty)
        same(steps[-1].candidates, every)
        best = list(every[0].tokens)
        assert steps[-1].tokens == best == session.tokens[len(PROMPT) :]
        assert stop.emitted == len(best)
        assert stop.reason == ("stop" if best[-1] in eos else "length")
        assert all(not step.tokens and not step.candidates and not len(step.tree) for step in steps[:-1])


def test_a_narrow_beam_is_the_textbook_one() -> None:
    """Without an end the beam is the ``width`` best of the children of the beam before."""
    pruned = 0
    for seed in range(8):
        toy = ToyModel(vocab=5, seed=seed)
        beam: list[tuple[float, Words]] = [(0.0, ())]
        for _ in range(6):
            logs = [toy.lm((*PROMPT, *words)).log_softmax(-1).tolist() for _, words in beam]
            children = [
                (total + log, (*words, t))
                for (total, words), row in zip(beam, logs, strict=True)
                for t, log in enumerate(row)
            ]
            beam = sorted(children, reverse=True)[:3]
        steps = search(Beam(3), toy.session(PROMPT), Stop(max_new_tokens=6))
        same(steps[-1].candidates, [Candidate(words, total / 6) for total, words in beam])
        greedy = search(Beam(1), toy.session(PROMPT), Stop(max_new_tokens=6))[-1]
        assert greedy.candidates[0].score <= beam[0][0] / 6
        pruned += greedy.tokens != list(beam[0][1])
    assert pruned, "no seed tells a beam from a greedy search"


@pytest.mark.parametrize("eos", [frozenset(), frozenset({2})], ids=["open", "ends"])
def test_one_beam_is_greedy_under_the_same_guides(eos: frozenset[int]) -> None:
    for seed, guides in itertools.product(range(6), [(), (Repetition(1.7),), (NoRepeatNGram(2), Repetition(0.6))]):
        toy = ToyModel(vocab=5, seed=seed, eos=eos)
        loop = toy.session(PROMPT)
        parts = NoDraft(), Greedy(), Laws(guides), Free(), Seeded(0)
        for _ in together([speculate(loop, *parts, Stop(eos, 7), LOGITS)]):
            pass
        session = toy.session(PROMPT)
        search(Beam(1, early_stopping=True), session, Stop(eos, 7), *guides)
        assert session.tokens == loop.tokens


def test_companions_walk_with_every_beam() -> None:
    for eos in (frozenset[int](), frozenset({2})):
        toy = ToyModel(seed=3, eos=eos)
        guide = ClassifierFree(2.0, "cb").bind(toy)

        def law(words: Words, toy: ToyModel = toy) -> Tensor:
            p, n = (toy.lm((*start, *words)).log_softmax(-1) for start in (PROMPT, (2, 1)))
            return n + 2 * (p - n)

        session = toy.session(PROMPT)
        counts = counted(session.arena)
        steps = search(Beam(27), session, Stop(eos, 3), guide)
        every = brute(law, until(3, *((e,) for e in eos)), 1.0)
        same(steps[-1].candidates, every)
        assert counts.forwards == len(steps)
        (other,) = session.followers()
        assert len(session.arena.nodes) == session.cached + other.cached
        assert 3 <= session.cached < len(session.tokens)
        assert session.cached - 3 == other.cached - 2
        assert eos or session.cached == len(session.tokens) - 1, "what the search computed of its answer stays"
        assert other.tokens == [2, 1, *steps[-1].tokens]


def test_more_ends_than_beams_leave_a_full_beam() -> None:
    """Three likely ends a row push every other token behind the first ``2 * width`` candidates."""
    toy = ToyModel(vocab=5, eos=frozenset({1, 2, 3}))
    toy.lm = lambda words: torch.tensor([0.1, 3.0, 2.9, 2.8, 0.0], dtype=torch.float64) + 0.01 * len(words)
    session, spy = toy.session(PROMPT), Spy()
    spy.lm, spy.session = toy.lm, session
    search(Beam(2, 50.0, "never"), session, Stop(toy.eos, 4), spy)
    assert spy.seen == [1, 2, 2, 2]
    assert session.tokens[3:] == [0, 0, 0, 1]


# transformers


class Normalised(LlamaForCausalLM):
    """Its logits are log-probabilities, so that a guide sees the same before and after a softmax."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        answer = super().forward(*inputs, **options)
        answer.logits = answer.logits.log_softmax(-1)
        return answer


def network(seed: int, kind: type[LlamaForCausalLM] = LlamaForCausalLM) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, initializer_range=0.25, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return kind(config).eval()


def prompts(seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 40, (n,), generator=generator).tolist() for n in (1, 5, 9)]


def theirs(
    net: LlamaForCausalLM, prompt: list[int], beam: Beam, eos: list[int], n: int, **options: Any
) -> tuple[list[Candidate], int]:
    """What transformers answers, and after how many forwards."""
    answer = net.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False, max_new_tokens=n,
        num_beams=beam.width, num_return_sequences=beam.width, length_penalty=beam.length_penalty,
        early_stopping=beam.early_stopping, eos_token_id=eos, pad_token_id=eos[0], return_dict_in_generate=True,
        output_scores=True, **options,
    )  # fmt: skip
    found = []
    for row, score in zip(answer.sequences[:, len(prompt) :].tolist(), answer.sequences_scores.tolist(), strict=True):
        end = next((i for i, token in enumerate(row, 1) if token in eos), len(row))
        found.append(Candidate(tuple(row[:end]), score))
    return found, len(answer.scores)


def likely(net: LlamaForCausalLM, prompt: list[int], n: int) -> list[int]:
    """Tokens to be declared ends, so that ends are met: those that a free search has at its place 4, 5, ..."""
    free = search(Beam(3), Session(SlotArena(TorchBackend(net)), prompt), Stop(max_new_tokens=12))[-1].candidates
    return sorted({free[0].tokens[4 + i] for i in range(n)})


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("ends", [1, 3])
def test_like_transformers(ends: int, penalty: float, early_stopping: bool | str) -> None:
    lengths: set[int] = set()
    for seed, width in ((0, 4), (1, 2), (2, 5)):
        net = network(seed)
        beam = Beam(width, penalty, early_stopping)
        for prompt in prompts(seed):
            eos = likely(net, prompt, ends)
            session, stop = Session(SlotArena(TorchBackend(net)), prompt), Stop(frozenset(eos), 12)
            steps = search(beam, session, stop)
            expected, forwards = theirs(net, prompt, beam, eos, 12)
            same(steps[-1].candidates, expected, 1e-4)
            assert len(steps) == forwards
            assert steps[-1].tokens == list(expected[0].tokens)
            assert stop.reason == ("stop" if steps[-1].tokens[-1] in eos else "length")
            lengths |= {len(one.tokens) for one in expected}
    if penalty < 2 or early_stopping is True:  # else length pays so well that most go to the limit
        assert len(lengths) > 3, "hardly any answer ended by itself"


def test_early_stopping_makes_a_difference() -> None:
    """Else the test above could not tell the three apart."""
    steps: dict[bool | str, int] = {True: 0, False: 0, "never": 0}
    for early, seed in itertools.product(steps, range(3)):
        net = network(seed)
        for prompt in prompts(seed):
            session, stop = Session(SlotArena(TorchBackend(net)), prompt), Stop(frozenset(likely(net, prompt, 3)), 12)
            steps[early] += len(search(Beam(3, 1.0, early), session, stop))
    assert steps[True] < steps[False] < steps["never"]


@pytest.mark.parametrize(
    ("kind", "guides", "options"),
    [
        (Normalised, (Repetition(1.8),), {"repetition_penalty": 1.8}),
        (Normalised, (Repetition(0.7),), {"repetition_penalty": 0.7}),
        (LlamaForCausalLM, (NoRepeatNGram(2),), {"no_repeat_ngram_size": 2}),
    ],
    ids=["repetition", "invited repetition", "no repeat"],
)
def test_guides_like_transformers(
    kind: type[LlamaForCausalLM], guides: tuple[Guide, ...], options: dict[str, Any]
) -> None:
    """Where log-probabilities and logits are one, and with the law normalised after the guides, as ours always is."""
    changed = 0
    for seed in range(3):
        net = network(seed, kind)
        for prompt in prompts(seed):
            beam, stop = Beam(3), Stop(frozenset({3, 20}), 10)
            steps = search(beam, Session(SlotArena(TorchBackend(net)), prompt), stop, *guides)
            expected, _ = theirs(net, prompt, beam, [3, 20], 10, renormalize_logits=True, **options)
            same(steps[-1].candidates, expected, 1e-4)
            changed += expected[0].tokens != theirs(net, prompt, beam, [3, 20], 10)[0][0].tokens
    assert changed, "the guide changed nothing"


def test_any_arena_and_any_company() -> None:
    """Snapshots instead of slots, and two searches in lock-step over one arena, find the same."""
    net, eos = network(1), frozenset({3, 17})
    texts = prompts(1)
    alone = [search(Beam(3), Session(SlotArena(TorchBackend(net)), p), Stop(eos, 9))[-1].candidates for p in texts]
    for prompt, expected in zip(texts, alone, strict=True):
        same(search(Beam(3), Session(StateArena(net, 64), prompt), Stop(eos, 9))[-1].candidates, expected, 1e-4)
    for lanes in (1, 3):
        arena = SlotArena(TorchBackend(net), lanes)
        sessions = [Session(arena, prompt) for prompt in texts]
        found: dict[int, Step] = dict(together([program(Beam(3), session, Stop(eos, 9)) for session in sessions]))
        for i, expected in enumerate(alone):
            same(found[i].candidates, expected, 1e-4)
        assert len(arena.nodes) == sum(session.cached for session in sessions)


def test_states_a_guide_wants_come_along() -> None:
    net = network(2)

    @dataclass
    class Head(Guide):
        want = Want(frozenset({Site.FINAL}))

        def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
            states: Tensor = rows.hidden[Site.FINAL]
            return net.lm_head(states) * 2  # type: ignore[no-any-return]

    @dataclass
    class Twice(Guide):
        def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
            return logits * 2

    with torch.inference_mode():
        a, b = (
            search(Beam(3), Session(SlotArena(TorchBackend(net)), [5, 6]), Stop(max_new_tokens=5), g)
            for g in (Head(), Twice())
        )
    same(a[-1].candidates, b[-1].candidates, 1e-4)


# The arena


@pytest.mark.parametrize("eos", [frozenset(), frozenset({2})], ids=["open", "ends"])
def test_one_forward_a_step_and_nothing_left(eos: frozenset[int]) -> None:
    for seed in range(5):
        toy = ToyModel(vocab=4, seed=seed, order=3, eos=eos)
        session, stop = toy.session(PROMPT), Stop(eos, 6)
        spy, counts = Spy(session, toy.lm), counted(session.arena)
        steps = search(Beam(3, early_stopping="never"), session, stop, spy)
        assert counts.forwards == len(steps) == len(spy.seen)
        assert counts.positions == len(PROMPT) + sum(spy.seen[1:])
        assert spy.seen[:2] == [1, 3]
        assert len(session.arena.nodes) == session.cached
        assert len(PROMPT) <= session.cached < len(session.tokens)
        assert eos or session.cached == len(session.tokens) - 1, "what the search computed of its answer stays"
        forward(session)
        assert len(session.arena.nodes) == len(session.tokens)
        session.close()
        assert not session.arena.nodes


def test_closed_early_it_leaves_nothing() -> None:
    for turns in range(1, 7):
        session = ToyModel().session(PROMPT)
        run = together([program(Beam(3), session, Stop(max_new_tokens=6))])
        for _ in range(turns):
            next(run)
        before = len(session.arena.nodes)
        del run
        assert len(session.arena.nodes) == session.cached == (3 if turns < 6 else 3 + 5)
        assert before > 3 or turns in (1, 6)


def test_an_error_leaves_nothing() -> None:
    @dataclass
    class Fails(Guide):
        def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
            return logits * (torch.nan if len(rows.paths[0]) == 2 else 1)

    session = ToyModel().session(PROMPT)
    with pytest.raises(BadLogits):
        search(Beam(3), session, Stop(max_new_tokens=6), Fails())
    assert len(session.arena.nodes) == 3


# Constraints


def matching(pattern: str, longest: int) -> list[Words]:
    words = (w for n in range(longest + 1) for w in itertools.product(range(3), repeat=n))
    return [w for w in words if re.fullmatch(pattern, "".join("abc"[t] for t in w))]


@pytest.mark.parametrize("pattern", ["a?(b|ca){1,2}c?", "(abc|cab|b)", "[ab]{2}c|c{1,3}"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_full_width_under_a_constraint(pattern: str, penalty: float) -> None:
    for seed in range(3):
        toy = ToyModel(vocab=4, seed=seed, eos=frozenset({3}))
        answers = [(*words, 3) for words in matching(pattern, 6)]
        begins = {words[:n] for words in answers for n in range(len(words) + 1)}

        def law(words: Words, toy: ToyModel = toy, begins: set[Words] = begins) -> Tensor:
            allowed = torch.tensor([(*words, t) in begins for t in range(4)])
            return toy.lm((*PROMPT, *words)).masked_fill(~allowed, -torch.inf)

        session, stop = toy.session(PROMPT), Stop(toy.eos, 20)
        steps = search(Beam(50, penalty), session, stop, constrain=Regex(pattern).bind(toy))
        every = brute(law, lambda words: words[-1:] == (3,), penalty)
        assert {one.tokens for one in every} == set(answers)
        same(steps[-1].candidates, every)
        assert stop.reason == "stop"
        narrow = search(Beam(2, penalty), toy.session(PROMPT), Stop(toy.eos, 20), constrain=Regex(pattern).bind(toy))
        assert {one.tokens for one in narrow[-1].candidates} <= set(answers)


def test_without_an_end_the_grammar_ends() -> None:
    toy = ToyModel()
    session, stop = toy.session(PROMPT), Stop(max_new_tokens=20)
    steps = search(Beam(20), session, stop, constrain=Regex("ab|ba|c(a|b)c").bind(toy))
    assert {one.tokens for one in steps[-1].candidates} == {(0, 1), (1, 0), (2, 0, 2), (2, 1, 2)}
    assert stop.reason == "dead_end"
    assert len(session.arena.nodes) == 3


def test_cut_short_against_the_constraint_counts_only_alone() -> None:
    for seed in range(6):
        toy = ToyModel(vocab=4, seed=seed, eos=frozenset({3}))
        for pattern, whole in (("b|(a|c){9}", True), ("(a|c){9}", False)):
            session, stop = toy.session(PROMPT), Stop(toy.eos, 4)
            steps = search(Beam(8), session, stop, constrain=Regex(pattern).bind(toy))
            if whole:
                assert [one.tokens for one in steps[-1].candidates] == [(1, 3)]
                assert stop.reason == "stop"
            else:
                assert len(steps[-1].candidates) == 8
                assert len(steps[-1].tokens) == 4
                assert stop.reason == "length"


@dataclass
class Wall(Constraint):
    """Allows token 0 ``n`` times, then nothing."""

    n: int = 0
    ends: bool = False

    def start(self, prompt: Sequence[int]) -> int:
        return 0

    def advance(self, state: int, token: int) -> int | None:
        return state + 1 if token == 0 and state < self.n else None

    def mask(self, state: int) -> Tensor:
        return torch.tensor([state < self.n, False, False])

    def may_end(self, state: int) -> bool:
        return self.ends


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("eos", [frozenset(), frozenset({2})], ids=["open", "ends"])
def test_dead_end(n: int, eos: frozenset[int]) -> None:
    toy = ToyModel(eos=eos)
    session, stop = toy.session(PROMPT), Stop(eos, 6)
    counts = counted(session.arena)
    steps = search(Beam(3), session, stop, constrain=Wall(n))
    assert stop.reason == "dead_end"
    assert session.tokens == [*PROMPT, *[0] * n]
    assert len(steps) == counts.forwards == n + 1
    assert len(session.arena.nodes) == session.cached == 3 + n


def test_forbidden_without_a_mask() -> None:
    """``mask`` None allows all; what ``advance`` then refuses is dropped."""

    @dataclass
    class Late(Free):
        def advance(self, state: Any, token: int) -> Any:
            return None if token == 1 else state

    for seed in range(5):
        candidates = search(Beam(27), ToyModel(seed=seed).session(PROMPT), Stop(max_new_tokens=3), constrain=Late())[
            -1
        ].candidates
        assert {one.tokens for one in candidates} == set(itertools.product((0, 2), repeat=3))


# Stopping


def letters() -> Any:
    """A tokenizer of the words a, b and c; other tokens show nothing."""
    return SimpleNamespace(
        decode=lambda tokens: "".join("abc"[t] for t in tokens if t < 3),
        hidden=lambda token: None if token < 3 else "",
        bytes={},
        opening=(),
    )


def test_a_stop_string_ends_a_hypothesis() -> None:
    codec = letters()
    for seed in range(4):
        toy = ToyModel(seed=seed, order=5)
        stop = Stop(max_new_tokens=5, text=TextStream(codec, ("cb", "aa")))  # type: ignore[arg-type]
        session = toy.session(PROMPT)
        steps = search(Beam(3**5), session, stop)
        reason = stop.reason
        stop.read(steps[-1], session)  # as the driver does
        assert stop.reason == reason
        assert session.tokens[len(PROMPT) :] == steps[-1].tokens
        every = brute(free(toy), until(5, (2, 1), (0, 0)), 1.0)
        same(steps[-1].candidates, every)
        assert stop.text is not None
        assert stop.text.tokens == list(every[0].tokens)
        assert (stop.reason == "stop") == (every[0].tokens[-2:] in {(2, 1), (0, 0)})


def test_a_stop_string_against_the_constraint_does_not_settle_the_search() -> None:
    codec = letters()
    broken = 0
    for seed in range(8):
        toy = ToyModel(vocab=4, seed=seed, eos=frozenset({3}))
        stop = Stop(toy.eos, 9, text=TextStream(codec, ("cb",)))  # type: ignore[arg-type]
        constrain = Regex("c[ab][ab]").bind(toy)
        steps = search(Beam(1, early_stopping=True), toy.session(PROMPT), stop, constrain=constrain)
        assert len(steps[-1].tokens) == 4
        assert steps[-1].tokens[:2] == [2, 0]
        row = toy.lm((*PROMPT, 2))
        broken += bool(row[1] > row[0])
    assert broken, "the stop string was never the likelier way"


def test_time_and_context_limits() -> None:
    session, stop = ToyModel().session(PROMPT), Stop(max_new_tokens=6, time_limit=0.0)
    assert search(Beam(3), session, stop) == []
    assert (stop.reason, session.tokens) == ("time", list(PROMPT))

    session, stop = ToyModel().session(PROMPT), Stop(max_new_tokens=6)
    run = together([program(Beam(3), session, stop)])
    steps = [next(run)[1], next(run)[1]]
    stop.time_limit = 0.0
    steps += [step for _, step in run]
    assert stop.reason == "time"
    assert [len(step.tokens) for step in steps] == [0, 0, 3]
    assert len(steps[-1].candidates) == 3

    session, stop = ToyModel().session(PROMPT), Stop(context=7)
    steps = search(Beam(3), session, stop)
    assert (len(session.tokens), stop.reason, len(steps)) == (7, "length", 4)
    assert search(Beam(3), session, Stop(context=7)) == []


SPECS = [
    ("beam", Beam()),
    ("beam:8", Beam(8)),
    ("beam:width=3,length_penalty=0,early_stopping=true", Beam(3, 0.0, True)),
    ("beam:early_stopping=never,length_penalty=-1.5", Beam(4, -1.5, "never")),
]


@pytest.mark.parametrize(("spec", "beam"), SPECS)
def test_spec(spec: str, beam: Beam) -> None:
    recipe = Recipe.of(search=spec)
    assert recipe.search == beam
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("spec", ["beam:0", "beam:early_stopping=soon", "beam:length_penalty=nan", "beam:width=2.5"])
def test_bad_spec(spec: str) -> None:
    with pytest.raises(DecoderyError, match="beam"):
        Recipe.of(search=spec)
