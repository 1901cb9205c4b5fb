"""The demo model: lossless on real prompts, structured answers, figures that add up."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import decodery
from decodery.core.errors import PartsClash
from decodery.core.tree import TokenTree
from decodery.draft.lib.store import Store
from decodery.draft.rapid import shorten
from decodery.inspect.compare import TIE
from decodery.model.turn import forward
from decodery.run.build import build
from decodery.run.registry import ROLES

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real")]
NEW = 24


@pytest.fixture(scope="session")
def prompts(data: Path, smollm2: Any) -> list[list[int]]:
    """40 Spec-Bench prompts of all categories, the shorter ones of each."""
    with (data / "spec_bench" / "question.jsonl").open() as file:
        questions = [json.loads(line) for line in file]
    by_kind: dict[str, list[list[int]]] = {}
    for question in questions:
        tokens = smollm2.tokens([{"role": "user", "content": question["turns"][0]}])
        by_kind.setdefault(question["category"], []).append(tokens)
    ranked = [sorted(kind, key=len) for kind in by_kind.values()]
    chosen = [kind[i] for i in range(10) for kind in ranked if i < len(kind)][:40]
    assert len(chosen) == 40
    return chosen


@pytest.fixture(scope="session")
def reference(prompts: list[list[int]], untouched: Any) -> Any:
    """transformers' own greedy answer to a prompt, and how far apart the two best logits were at each token."""

    @cache
    def answer(number: int) -> tuple[list[int], list[float]]:
        prompt = prompts[number]
        found = untouched.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(found.logits)[:, 0].topk(2).values
        return found.sequences[0, len(prompt) :].tolist(), (best[:, 0] - best[:, 1]).tolist()

    return answer


def same(tokens: list[int], reference: tuple[list[int], list[float]]) -> bool:
    """Token for token, or parted at a tie of the two best logits."""
    expected, gaps = reference
    parted = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=False)) if a != b), None)
    return len(tokens) == len(expected) if parted is None else gaps[parted] < TIE


@pytest.mark.parametrize(
    ("draft", "verify", "n"),
    [("recycling", "residual", 40), ("ngram:width=3", "greedy", 12), ("model", "greedy", 6), ("jacobi", "residual", 6)],
)
def test_lossless(draft: str, verify: str, n: int, prompts: Any, reference: Any, smollm2: Any) -> None:
    """Equal to transformers' greedy search; drafts were made, accepted and refused."""
    outputs = [decodery.decode(smollm2, p, draft=draft, verify=verify, max_new_tokens=NEW) for p in prompts[:n]]
    wrong = [i for i, output in enumerate(outputs) if not same(output.tokens, reference(i))]
    assert not wrong, f"prompts {wrong} differ from transformers"
    drafted, accepted = (sum(getattr(o.stats, name) for o in outputs) for name in ("drafted", "accepted"))
    assert 0 < accepted < drafted
    assert sum(o.stats.tokens for o in outputs) > sum(o.stats.forwards for o in outputs)


@pytest.fixture(scope="session")
def fastest() -> Any:
    """The demo model over OpenVINO: the codes of its file, and a cache in pages."""
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'openvino>=2026.4'")
    return decodery.load("smollm2", backend="openvino")


def test_the_default_answers_as_transformers(prompts: Any, reference: Any, fastest: Any) -> None:
    """Weights as codes, pages and drafts: the same tokens, one prompt at a time and six at once."""
    assert type(fastest.arena()).__name__ == "PagedArena"
    options: Any = {"draft": "auto", "plan": "fixed:8", "max_new_tokens": NEW}
    outputs = [decodery.decode(fastest, prompt, **options) for prompt in prompts[:20]]
    outputs += decodery.decode(fastest, prompts[:6], **options)
    wrong = [i for i, output in enumerate(outputs) if not same(output.tokens, reference(i % 20))]
    assert not wrong, f"answers {wrong} differ from transformers"
    assert sum(output.stats.accepted for output in outputs) > 0


@pytest.fixture(scope="session")
def warm(prompts: Any, smollm2: Any, request: Any) -> Any:
    """20 prompts on each backend, read once: a drafter finds them in the cache of their sessions."""
    models = [smollm2]
    if importlib.util.find_spec("openvino"):
        models.insert(0, request.getfixturevalue("fastest"))

    @cache
    def sessions(number: int) -> list[Any]:
        return [models[number].session(prompt) for prompt in prompts[:20]]

    def first_that_takes(draft: Any) -> tuple[Any, list[Any]]:
        for number, model in enumerate(models):
            try:
                build(decodery.Recipe.of(draft=draft), model)
                return model, sessions(number)
            except PartsClash:
                if model is models[-1]:
                    raise
        raise AssertionError

    return first_that_takes


@pytest.mark.parametrize("name", ROLES["draft"].parts)
def test_every_drafter_leaves_twenty_answers_as_they_are(
    name: str, warm: Any, prompts: Any, reference: Any, smollm2: Any
) -> None:
    """The first 8 tokens of 20 answers; the store holds the answers, PEARL drafts with the target's own weights."""
    answers = [reference(number) for number in range(20)]
    needed: dict[str, dict[str, Any]] = {
        "datastore": {"path": Store.of([tokens for tokens, _ in answers], smollm2.fingerprint())},
        "pearl": {"path": smollm2},
        "rapid": {"chunk": 16, "keep": 1, "query": 8},
    }
    draft = {name: needed.get(name, {})}
    model, sessions = warm(draft)
    for number, (prompt, session) in enumerate(zip(prompts[:20], sessions, strict=True)):
        output = decodery.decode(model, prompt, draft=draft, session=session, max_new_tokens=8)
        tokens, gaps = answers[number]
        assert same(output.tokens, (tokens[:8], gaps)), f"prompt {number} differs from transformers"


def test_a_draft_that_reads_the_right_chunk_is_accepted_more_often(data: Path, smollm2: Any) -> None:
    """RAPID's needle: a fact in one of 20 chunks of a novel; the chance to be accepted along the target's own answer."""
    novel = smollm2.encode((data / "longtext" / "crime_and_punishment.txt").read_text()[20_000:40_000])
    accepted: dict[str, list[float]] = {"right": [], "other": []}
    for i, (place, words) in enumerate([("harbour", "red tiger"), ("library", "blue horse"), ("castle", "white wolf")]):
        chunks = [novel[(20 * i + j) * 24 :][:24] for j in range(20)]
        fact = smollm2.encode(f" The secret password of the {place} is {words}.")
        right, other = 4 + 5 * i, 17 - 4 * i
        chunks[right] = [*chunks[right], *fact][-24:]
        ask = smollm2.encode(
            f"\n\nQuestion: What is the secret password of the {place}?\nAnswer: The secret password of the {place} is"
        )
        prompt = [*(token for chunk in chunks for token in chunk), *ask]
        assert shorten(prompt, chunk=24, keep=1, query=len(ask)) == [*chunks[right], *ask]
        session = smollm2.session(prompt)
        answer = decodery.decode(smollm2, prompt, session=session, max_new_tokens=4, ignore_eos=True).tokens
        session.restart(prompt)
        p = forward(session, TokenTree.chain(answer[:-1])).logits.softmax(-1)
        for name, chunk in (("right", chunks[right]), ("other", chunks[other])):
            q = forward(smollm2.session([*chunk, *ask]), TokenTree.chain(answer[:-1])).logits.softmax(-1)
            accepted[name].append(float(torch.minimum(p, q).sum(-1).mean()))
    assert sum(accepted["right"]) > sum(accepted["other"]) + 0.3, accepted


def test_a_batch_equals_single_runs(prompts: Any, reference: Any, smollm2: Any) -> None:
    outputs = decodery.decode(smollm2, prompts[:5], draft="ngram", max_new_tokens=NEW)
    assert all(same(output.tokens, reference(i)) for i, output in enumerate(outputs))


@pytest.mark.parametrize("draft", ["none", "recycling"])
def test_constraints_hold(draft: str, smollm2: Any) -> None:
    ask = [{"role": "user", "content": "When was the first moon landing? Answer with a date."}]
    date = decodery.decode(smollm2, ask, draft=draft, constrain=r"regex:[0-9]{4}-[0-9]{2}-[0-9]{2}", max_new_tokens=30)
    year, month, day = date.text.split("-")
    assert (len(year), len(month), len(day)) == (4, 2, 2)
    assert date.finish_reason == "stop"
    for guide in ([], ["temperature:0"], ["top-k:5"]):
        choice = decodery.decode(
            smollm2, ask, draft=draft, constrain={"choice": {"options": ["yes", "no", "perhaps"]}}, guide=guide, seed=0
        )
        assert choice.text in ("yes", "no", "perhaps")


def test_characters_of_several_tokens_stream_whole(smollm2: Any) -> None:
    tokens = smollm2.encode("naïve 日本語 🙂 text")
    prompt = [{"role": "user", "content": "Repeat: naïve 日本語 🙂 text"}]
    pieces = list(decodery.stream(smollm2, prompt, constrain={"choice": {"options": ["naïve 日本語 🙂 text"]}}))
    text = "".join(piece.text for piece in pieces)
    assert text == "naïve 日本語 🙂 text"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece.text for piece in pieces)
    assert len(tokens) > 4


def test_beam_equals_transformers(prompts: Any, smollm2: Any, untouched: Any) -> None:
    prompt = prompts[0]
    expected = untouched.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=3,
        max_new_tokens=10,
        do_sample=False,
    )[0, len(prompt) :].tolist()
    output = decodery.decode(smollm2, prompt, search="beam:width=3", max_new_tokens=10)
    assert output.tokens == expected
    assert len(output.candidates) == 3
