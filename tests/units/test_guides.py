"""Each guide against transformers' processor, or against its definition written out row by row."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from decodery.core.errors import PartsClash
from decodery.core.part import Model
from decodery.core.roles import Guide
from decodery.core.tree import TokenTree
from decodery.core.values import Rows, Tensor
from decodery.guide.cfg import ClassifierFree
from decodery.guide.dola import Dola
from decodery.guide.frequency import Frequency
from decodery.guide.lib import nucleus
from decodery.guide.logit_bias import LogitBias
from decodery.guide.min_new_tokens import MinNewTokens
from decodery.guide.min_p import MinP
from decodery.guide.no_repeat_ngram import NoRepeatNGram
from decodery.guide.presence import Presence
from decodery.guide.processor import Processor
from decodery.guide.repetition import Repetition
from decodery.guide.temperature import Temperature
from decodery.guide.top_k import TopK
from decodery.guide.top_p import TopP
from decodery.guide.typical_p import TypicalP
from decodery.model.toy import ToyModel
from decodery.model.turn import forward
from decodery.run.registry import ROLES, find

V = 60
WIDTH = 8
SEEDS = range(12)
Reference = Callable[..., Tensor]


def forest(seed: int, vocab: int = V, sharpness: float = 2.0, letters: int = 7) -> Rows:
    """Rows of a random tree behind a random context; few letters, so that words repeat."""
    rng = random.Random(seed)
    context = [rng.randrange(letters) for _ in range(rng.randint(1, 14))]
    tree = TokenTree()
    for node in range(rng.randint(1, 9)):
        tree.add(rng.randrange(letters), rng.randint(-1, node - 1))
    paths = [(), *(tree.words(node) for node in tree.live())]
    torch.manual_seed(seed)
    logits = torch.randn(len(paths), vocab) * sharpness
    logits[:, letters:] -= sharpness  # repeated words are likely words, so that guides that forbid them matter
    return Rows(logits, tuple(context), paths, prompt=rng.randint(0, len(context)))


def guided(guide: Guide, rows: Rows) -> Tensor:
    return guide(rows.logits.clone(), rows)


def one_by_one(rows: Rows, processor: Callable[[Rows, int], Reference]) -> Tensor:
    """What transformers makes of each row alone."""
    answers = [
        processor(rows, row)(torch.tensor([rows.words(row)]), rows.logits[row : row + 1].clone())
        for row in range(len(rows))
    ]
    return torch.cat(answers)


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def face(text: dict[str, list[int]] | None = None, eos: Sequence[int] = (), vocab: int = V) -> Model:
    """As much of a model as a guide asks for."""
    words = text or {}

    def encode(text: str) -> list[int]:
        return list(words.get(text, []))

    head = torch.randn(WIDTH, vocab, generator=torch.Generator().manual_seed(5))

    def logits(states: Tensor) -> Tensor:
        return (states[:, :, None] * head).sum(1)  # a matrix product would round by how many rows there are

    return cast(
        Model,
        SimpleNamespace(vocab=vocab, eos=frozenset(eos), encode=encode, pieces=encode, depth=4, logits=logits),
    )


PAIRS: dict[str, tuple[Guide, Reference]] = {
    "top-k 1": (TopK(1), TopKLogitsWarper(1)),
    "top-k 7": (TopK(7), TopKLogitsWarper(7)),
    "top-k beyond V": (TopK(V + 1), TopKLogitsWarper(V + 1)),
    "top-p .3": (TopP(0.3), TopPLogitsWarper(0.3)),
    "top-p .9": (TopP(0.9), TopPLogitsWarper(0.9)),
    "top-p 0": (TopP(0), TopPLogitsWarper(0)),
    "top-p 1": (TopP(1), TopPLogitsWarper(1)),
    "min-p .05": (MinP(0.05), MinPLogitsWarper(0.05)),
    "min-p 0": (MinP(0), MinPLogitsWarper(0)),
    "min-p 1": (MinP(1), MinPLogitsWarper(1)),
    "typical .2": (TypicalP(0.2), TypicalLogitsWarper(0.2)),
    "typical .95": (TypicalP(0.95), TypicalLogitsWarper(0.95)),
    "repetition 1.3": (Repetition(1.3), RepetitionPenaltyLogitsProcessor(1.3)),
    "repetition .7": (Repetition(0.7), RepetitionPenaltyLogitsProcessor(0.7)),
    "no 1-gram": (NoRepeatNGram(1), NoRepeatNGramLogitsProcessor(1)),
    "no 2-gram": (NoRepeatNGram(2), NoRepeatNGramLogitsProcessor(2)),
    "no 3-gram": (NoRepeatNGram(3), NoRepeatNGramLogitsProcessor(3)),
    "no 5-gram": (NoRepeatNGram(5), NoRepeatNGramLogitsProcessor(5)),
    "bias": (LogitBias({3: 1.5, 9: -2.0}).bind(face()), SequenceBiasLogitsProcessor([[[3], 1.5], [[9], -2.0]])),
}
IDLE = {"top-k beyond V", "top-p 1", "min-p 0"}


@pytest.mark.parametrize("name", PAIRS)
def test_equals_transformers(name: str) -> None:
    guide, reference = PAIRS[name]
    changed = 0
    for seed in SEEDS:
        rows = forest(seed, letters=2 if "5-gram" in name else 7)
        ours = guided(guide, rows)
        same(ours, one_by_one(rows, lambda *_: reference))
        changed += not torch.equal(ours, rows.logits)
    assert (changed == 0) == (name in IDLE)


@pytest.mark.parametrize("seed", SEEDS)
def test_min_new_tokens_equals_transformers(seed: int) -> None:
    rows = forest(seed)
    new = len(rows.context) - rows.prompt
    for n in (0, new, new + 1, new + 2, 99):
        ours = guided(MinNewTokens(n).bind(face(eos=[4, 50])), rows)
        reference = MinNewTokensLengthLogitsProcessor(rows.prompt, n, [4, 50])
        same(ours, one_by_one(rows, lambda *_, reference=reference: reference))
        forbidden = [new + len(path) < n for path in rows.paths]
        assert (ours[:, [4, 50]] == -torch.inf).all(-1).tolist() == forbidden


@pytest.mark.parametrize("name", [name for name in PAIRS if name.startswith(("top", "min", "typical"))])
def test_filters_behind_another_filter(name: str) -> None:
    guide, reference = PAIRS[name]
    for seed in SEEDS:
        rows = forest(seed)
        TopK(9)(rows.logits, rows)
        same(guided(guide, rows), one_by_one(rows, lambda *_: reference))


def test_min_new_tokens_without_eos_changes_nothing() -> None:
    rows = forest(0)
    same(guided(MinNewTokens(99).bind(face()), rows), rows.logits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_top_p_over_a_large_vocabulary(seed: int, p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharp rows are settled by the first slice, flat ones are not; both stand in one call."""
    rows = forest(seed, 5000)
    rows.logits[::2] = torch.randn_like(rows.logits[::2]) * 5
    rows.logits[1::2] = torch.randn_like(rows.logits[1::2]) * 0.1
    sizes = []
    search = nucleus._least

    def spy(score: Tensor, mass: Tensor, total: Tensor, p: float, size: int) -> Tensor:
        sizes.append((size, len(score)))
        return search(score, mass, total, p, size)

    monkeypatch.setattr(nucleus, "_least", spy)
    ours = guided(TopP(p), rows)
    same(ours, one_by_one(rows, lambda *_: TopPLogitsWarper(p)))
    kept = (ours > -torch.inf).sum(-1)
    assert (kept[::2] < 1024).all()
    slow = int((kept > 1024).sum())
    assert slow == (0 if p == 0.1 else len(rows) // 2)
    assert sizes == [(1024, len(rows)), *([(8192, slow)] if slow else [])]
    same(guided(TypicalP(p), rows), one_by_one(rows, lambda *_: TypicalLogitsWarper(p)))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_top_p_widens_its_slice_until_the_mass_is_reached(sharpness: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = forest(1, 5000, sharpness)
    monkeypatch.setattr(nucleus, "SLICE", 5000)
    whole = guided(TopP(0.9), rows)
    for first in (1, 2, 3, 5):
        monkeypatch.setattr(nucleus, "SLICE", first)
        same(guided(TopP(0.9), rows), whole)


def test_ties_stay_together() -> None:
    rows = Rows(torch.tensor([[0.0, 1.0, 1.0, -1.0]]), (0,))
    for guide in (TopK(1), TopP(0.1), MinP(1), TypicalP(0.1)):
        assert (guided(guide, rows) > -torch.inf).tolist() == [[False, True, True, False]], guide


Words = st.lists(st.integers(0, 5), max_size=6)
Paths = st.lists(Words.map(tuple), min_size=1, max_size=5)
Penalty = st.floats(-3, 3)


@st.composite
def small_rows(draw: st.DrawFn) -> Rows:
    context, paths = draw(Words), draw(Paths)
    torch.manual_seed(draw(st.integers(0, 99)))
    return Rows(torch.randn(len(paths), 6), tuple(context), paths, prompt=draw(st.integers(0, len(context))))


def naive(rows: Rows, change: Callable[[float, int, int], float]) -> Tensor:
    """``change(logit, times in prompt and answer, times in the answer)`` for each token of each row."""
    out = rows.logits.double()
    for row in range(len(rows)):
        words, answer = rows.words(row), rows.words(row)[rows.prompt :]
        for token in range(out.shape[1]):
            out[row, token] = change(float(out[row, token]), words.count(token), answer.count(token))
    return out


@settings(max_examples=60, deadline=None)
@given(rows=small_rows(), penalty=Penalty)
def test_presence_is_openais(rows: Rows, penalty: float) -> None:
    ours = guided(Presence(penalty), rows)
    expected = naive(rows, lambda logit, _, answer: logit - penalty * (answer > 0))
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rows=small_rows(), penalty=Penalty)
def test_frequency_is_openais(rows: Rows, penalty: float) -> None:
    ours = guided(Frequency(penalty), rows)
    expected = naive(rows, lambda logit, _, answer: logit - penalty * answer)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rows=small_rows(), penalty=st.floats(0.1, 3))
def test_repetition_is_ctrls(rows: Rows, penalty: float) -> None:
    def change(logit: float, seen: int, _: int) -> float:
        return logit if not seen else logit * penalty if logit < 0 else logit / penalty

    torch.testing.assert_close(guided(Repetition(penalty), rows).double(), naive(rows, change), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rows=small_rows(), n=st.integers(1, 4))
def test_no_ngram_comes_twice(rows: Rows, n: int) -> None:
    ours = guided(NoRepeatNGram(n), rows)
    for row in range(len(rows)):
        words = rows.words(row)
        runs = {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
        for token in range(6):
            again = len(words) >= n - 1 and (*words[len(words) - n + 1 :], token) in runs
            assert (ours[row, token] == -torch.inf) == again


def test_words_the_logits_lack_are_passed_over() -> None:
    rows = Rows(torch.ones(2, 4), (1, 9, 1, 9), [(), (9,)])
    for guide in (Presence(1.0), Frequency(1.0), Repetition(2.0), NoRepeatNGram(1)):
        changed = guided(guide, rows) != rows.logits
        assert changed.tolist() == [[False, True, False, False]] * 2, guide


def everything(rows: Rows) -> list[Guide]:
    """Every guide of the registry, ready for these rows."""
    torch.manual_seed(99)
    rows.companions["negative"] = Rows(torch.randn_like(rows.logits), (0,), rows.paths)
    rows.hidden[1] = torch.randn(len(rows), WIDTH)
    guides: list[Guide] = [
        Temperature(0.7),
        TopK(5),
        TopP(0.8),
        MinP(0.1),
        TypicalP(0.8),
        Repetition(1.3),
        Presence(0.3),
        Frequency(0.3),
        NoRepeatNGram(2),
        LogitBias({1: 2.0, 2: -math.inf}),
        MinNewTokens(3),
        ClassifierFree(2.0),
        Dola((1,), 0.01),
        Processor(RepetitionPenaltyLogitsProcessor(1.3)),
    ]
    assert {type(guide) for guide in guides} == {find("guide", name).part for name in ROLES["guide"].parts}
    return [guide.bind(face(eos=[3])) for guide in guides]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tree_of_rows_is_row_by_row(seed: int) -> None:
    """To the last bit, whether a word is committed or only drafted."""
    rows = forest(seed)
    for guide in everything(rows):
        before = rows.companions["negative"].logits.clone()
        together = guided(guide, rows)
        for row in range(len(rows)):
            alone = Rows(rows.logits[row : row + 1], tuple(rows.words(row)), prompt=rows.prompt)
            alone.companions["negative"] = Rows(rows.companions["negative"].logits[row : row + 1], (0,))
            alone.hidden[1] = rows.hidden[1][row : row + 1]
            same(together[row : row + 1], guided(guide, alone))
        same(rows.companions["negative"].logits, before)


def test_no_rows_and_dead_rows() -> None:
    """No rows are no error, and a row with nothing left stays that: no NaN, no token comes back."""
    empty = Rows(torch.zeros(0, V), (1, 2, 1), [])
    dead = Rows(torch.full((2, V), -torch.inf), (1, 2, 1), [(), (2,)])
    for guide in everything(empty):
        assert guided(guide, empty).shape == (0, V)
    for guide in everything(dead):
        assert (guided(guide, dead) == -torch.inf).all(), guide


def test_tokens_ruled_out_before_stay_out() -> None:
    rows = forest(3)
    rows.logits[:, 10:] = -torch.inf
    for guide in everything(rows):
        rows.companions["negative"].logits[:, 20:] = -torch.inf
        out = guided(guide, rows)
        assert (out[:, 10:] == -torch.inf).all(), guide
        assert not out.isnan().any(), guide


def test_which_guides_sample() -> None:
    sampling = {name for name in ROLES["guide"].parts if cast(type[Guide], find("guide", name).part).samples}
    assert sampling == {"temperature", "top-k", "top-p", "min-p", "typical-p"}


def test_bias_by_text() -> None:
    model = face({" yes": [7], "no": [8, 9]})
    rows = forest(0)
    ours = guided(LogitBias({" yes": 2.0, 7: 0.5, 8: -math.inf}).bind(model), rows)
    expected = rows.logits.clone()
    expected[:, 7] += 2.5
    expected[:, 8] = -torch.inf
    same(ours, expected)
    with pytest.raises(ValueError, match="'no' is 2 tokens here, \\[8, 9\\]"):
        LogitBias({"no": 1.0}).bind(model)
    with pytest.raises(ValueError, match="'' is 0 tokens"):
        LogitBias({"": 1.0}).bind(model)
    for outside in (-1, V):
        with pytest.raises(ValueError, match=f"outside the vocabulary, 0 to {V - 1}"):
            LogitBias({outside: 1.0}).bind(model)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 1.5, 4.0])
def test_cfg_equals_transformers(seed: int, scale: float) -> None:
    rows = forest(seed)
    torch.manual_seed(seed + 1000)
    negative = torch.randn_like(rows.logits)
    rows.companions["negative"] = Rows(negative, (0,), rows.paths)

    class Answer(dict[str, Any]):
        logits: Tensor

    def processor(_: Rows, row: int) -> Reference:
        answer = Answer()
        answer.logits = negative[row][None, None]
        theirs: Reference = UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, lambda *_, **__: answer)
        return theirs

    ours = guided(ClassifierFree(scale), rows)
    torch.testing.assert_close(ours, one_by_one(rows, processor), rtol=1e-5, atol=1e-5)
    n, p = negative.log_softmax(-1), rows.logits.log_softmax(-1)
    torch.testing.assert_close(ours, n + scale * (p - n), rtol=1e-5, atol=1e-5)


def test_cfg_follows_a_session() -> None:
    """The companion's rows are those of the negative prompt and the same answer, after a commit and over a tree."""
    model = ToyModel(vocab=5, seed=3)
    guide = ClassifierFree(1.7, "ba").bind(model)
    session = model.session([2, 3, 4])
    session.accompany({(0, name): one for name, one in guide.companions(session.tokens).items()})
    forward(session)
    session.commit([1])
    tree = TokenTree()
    tree.add(2, tree.add(0))
    tree.add(4)
    rows = forward(session, tree)
    rows.companions = {name: other for (_, name), other in rows.companions.items()}  # as ``Laws`` shows them to a guide
    ours = guided(guide, rows)
    assert len(rows) == 4
    for row, path in enumerate(rows.paths):
        n = model.lm((1, 0, 1, *path)).log_softmax(-1)
        p = model.lm((2, 3, 4, 1, *path)).log_softmax(-1)
        torch.testing.assert_close(ours[row], n + 1.7 * (p - n))


def test_cfg_prompts() -> None:
    model = face({"x": [5, 6]}, eos=[9, 4])
    assert ClassifierFree(negative="x").bind(model).companions([])["negative"].prompt == (5, 6)
    assert ClassifierFree().bind(model).companions([])["negative"].prompt == (4,)
    assert ClassifierFree().bind(face({"": [1]}, eos=[9])).companions([])["negative"].prompt == (1,)
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        ClassifierFree().bind(face())
    with pytest.raises(PartsClash, match="without its companion"):
        guided(ClassifierFree().bind(model), forest(0))


@pytest.mark.parametrize("seed", SEEDS)
def test_processor_is_the_direct_call(seed: int) -> None:
    rows = forest(seed)
    chain = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.4), NoRepeatNGramLogitsProcessor(2)])
    for processor in (*chain, chain):
        same(guided(Processor(processor), rows), one_by_one(rows, lambda *_, p=processor: p))


def test_processor_hands_over_prompt_and_path() -> None:
    rows = forest(1)
    seen: list[list[int]] = []

    def note(ids: Tensor, scores: Tensor) -> Tensor:
        assert (ids.shape[0], scores.shape, ids.dtype) == (1, (1, V), torch.long)
        seen.extend(ids.tolist())
        return scores.add_(1)  # in place, as some processors work

    same(guided(Processor(note), rows), rows.logits + 1)
    assert seen == [rows.words(row) for row in range(len(rows))]


@pytest.mark.parametrize(
    "make",
    [
        lambda: TopK(0),
        lambda: TopK(-1),
        lambda: TopP(-0.1),
        lambda: TopP(1.1),
        lambda: TopP(math.nan),
        lambda: MinP(-0.1),
        lambda: MinP(1.5),
        lambda: TypicalP(0),
        lambda: TypicalP(1.2),
        lambda: Repetition(0),
        lambda: Repetition(-1),
        lambda: Repetition(math.inf),
        lambda: Presence(math.nan),
        lambda: Frequency(math.inf),
        lambda: NoRepeatNGram(0),
        lambda: LogitBias({1: math.inf}),
        lambda: LogitBias({"a": math.nan}),
        lambda: MinNewTokens(-1),
        lambda: ClassifierFree(-0.5),
        lambda: ClassifierFree(math.nan),
        lambda: Processor(3),
    ],
)
def test_bad_parameters(make: Callable[[], Guide]) -> None:
    with pytest.raises(ValueError, match=r"must|need"):
        make()
