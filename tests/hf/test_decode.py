"""The public face over tiny random models: batches, samples, sessions, reports; for trees and for snapshots alike."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import decodery
from decodery.core.errors import BadLogits, BadPrompt, DecoderyError, PartsClash
from decodery.core.values import Cap
from decodery.draft.lib.draft_model import Grown, Thinned
from decodery.draft.pearl import Pearl
from decodery.draft.rapid import RapidDraft, shorten
from decodery.draft.recycling import Recycling
from decodery.model.model import Model
from decodery.model.slots import SlotArena
from decodery.run.registry import ROLES, entries

from .tiny import CONFIGS, VOCAB, network, truth

PROMPTS = [[5, 9, 12, 5, 9], [7, 8, 7, 8, 7, 8, 20], [30]]
OPTIONS: dict[str, Any] = {"max_new_tokens": 14, "ignore_eos": True}
OWN_LAYERS = [entry.name for entry in entries() if issubclass(entry.part, (Grown, Thinned))]
"""Drafters that ask the target itself, through fewer layers."""
EAGER = {
    "copyspec": "copyspec:gamma=1",
    "layer-skip": "layer-skip:speedup=1",
    "rapid": "rapid:chunk=1,keep=1,query=1",
}
"""Parameters under which a drafter drafts in answers as short as these, by networks as shallow."""


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2")


@cache
def model(name: str = "llama") -> Model:
    return Model(network(name), tokenizer(), name)


def plain(name: str, prompt: list[int], n: int = 14) -> list[int]:
    """Greedy decoding by its definition."""
    words = list(prompt)
    for _ in range(n):
        words.append(int(truth(name, words).argmax()))
    return words[len(prompt) :]


@cache
def second(name: str) -> Model:
    """The same network as a model of its own, for drafters that need one."""
    return Model(network(name), tokenizer(), name)


@pytest.mark.parametrize("draft", [d for d in ROLES["draft"].parts if d != "datastore"])
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_the_definition(name: str, draft: str) -> None:
    """One by one and in a batch whose rows have other lengths."""
    if draft in OWN_LAYERS and Cap.LAYERS not in model(name).can:
        with pytest.raises(PartsClash, match=r"give path=|give another path=|needs a model with .*layer subsets"):
            decodery.decode(model(name), PROMPTS[0], draft=draft, **OPTIONS)
        return
    expected = [plain(name, prompt) for prompt in PROMPTS]
    spec: Any = {"pearl": {"path": second(name)}} if draft == "pearl" else EAGER.get(draft, draft)
    outputs = decodery.decode(model(name), PROMPTS, draft=spec, **OPTIONS)
    assert [output.tokens for output in outputs] == expected
    single = [decodery.decode(model(name), prompt, draft=spec, **OPTIONS) for prompt in PROMPTS]
    assert [output.tokens for output in single] == expected
    gives_way = draft == "auto" and Cap.TREE not in model(name).can  # nobody asked for these drafts by name
    assert (sum(output.stats.drafted for output in single) > 0) == (draft not in ("none", "schema") and not gives_way)


@pytest.mark.parametrize("name", ["llama", "gemma3 (sliding and full)", "gpt2"])
@pytest.mark.parametrize("spec", ["model", "model:width=3,length=2", "model:layers=[0,2],length=4"])
def test_drafting_with_fewer_layers(name: str, spec: str) -> None:
    outputs = [decodery.decode(model(name), prompt, draft=spec, **OPTIONS) for prompt in PROMPTS]
    assert [output.tokens for output in outputs] == [plain(name, prompt) for prompt in PROMPTS]
    assert 0 < sum(o.stats.accepted for o in outputs) < sum(o.stats.drafted for o in outputs)


def test_a_draft_equal_to_the_target_is_accepted_whole() -> None:
    """Call accounting: with chain length K every pass gives K + 1 tokens, greedy or sampled."""
    from decodery.draft.model import ModelDraft

    for guide in ([], ["temperature:1.0"]):
        draft = ModelDraft(path=Model(network("llama"), tokenizer()), length=3)
        output = decodery.decode(
            model(), PROMPTS[0], draft=draft, guide=guide, seed=1, max_new_tokens=12, ignore_eos=True
        )
        assert output.stats.forwards == 3
        assert output.stats.accepted == output.stats.drafted == 9


@cache
def blurred() -> Model:
    """The llama with some noise in its weights: a draft model that is often right."""
    other = copy.deepcopy(network("llama"))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * parameter.std())
    return Model(other, tokenizer())


def test_pearl_leaves_twenty_greedy_answers_as_they_are() -> None:
    """With a draft model that is often right; drafts are accepted and refused."""
    drafted = accepted = 0
    for start in range(3, 23):
        prompt = [start, 9, start, 12]
        output = decodery.decode(model(), prompt, draft=Pearl(blurred(), gamma=3), max_new_tokens=20, ignore_eos=True)
        assert output.tokens == plain("llama", prompt, 20)
        drafted, accepted = drafted + output.stats.drafted, accepted + output.stats.accepted
    assert 0 < accepted < drafted


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("keep", [2, 9])
def test_rapid_places_the_answer_behind_what_each_context_holds(name: str, keep: int) -> None:
    """Each draft's law is that of the short text by a pass without a cache; where all is kept, it is the target's."""
    prompt = [(7 * i) % VOCAB for i in range(3, 33)]
    short = shorten(prompt, chunk=4, keep=keep, query=4)
    assert (short == prompt) == (keep == 9)
    draft = RapidDraft(length=3, chunk=4, keep=keep, query=4, path=second(name))
    drafted, answer = 0, list[int]()
    options: dict[str, Any] = {"guide": "temperature:1", "seed": 1, **OPTIONS}
    for piece in decodery.stream(model(name), prompt, draft=draft, **options):
        assert piece.step is not None
        tree = piece.step.tree
        for node in range(len(tree)):
            q = tree.q[node]
            assert q is not None
            text = [*short, *answer, *tree.words(node)[:-1]]
            assert torch.allclose(q, truth(name, text).softmax(-1), atol=1e-4)
            if keep == 9:
                p = piece.step.p.row(piece.step.rows.at(tree.parents[node]) or 0)
                assert p is not None
                assert torch.allclose(q, p, atol=1e-4)
            drafted += 1
        answer += piece.step.tokens
    assert drafted > 9


WARM = ["temperature:0.6", "repetition:1.2"]


# Not "auto" where tokens are sampled: when it rests hangs on the clock, and with it what is drawn.
@pytest.mark.parametrize(
    ("plan", "guide"), [("off", []), ("off", WARM), ("fixed:2", []), ("fixed:2", WARM), ("auto", [])]
)
def test_pearl_in_threads_is_pearl_without(plan: str, guide: list[str]) -> None:
    """Two networks at work at once, for three rows: the same tokens and the same rounds; greedily, those of the target."""
    options: dict[str, Any] = {"guide": guide, "seed": 3, "max_new_tokens": 40, "ignore_eos": True}
    runs = [
        decodery.decode(model(), PROMPTS, draft=Pearl(blurred(), overlap=overlap), plan=plan, **options)
        for overlap in (True, False)
    ]
    assert [output.tokens for output in runs[0]] == [output.tokens for output in runs[1]]
    if not guide:
        assert [output.tokens for output in runs[0]] == [plain("llama", prompt, 40) for prompt in PROMPTS]
    if plan == "off":
        assert [output.stats.forwards for output in runs[0]] == [output.stats.forwards for output in runs[1]]
        assert 0 < sum(o.stats.accepted for o in runs[0]) < sum(o.stats.drafted for o in runs[0])


@pytest.mark.parametrize("draft", ["none", "ngram", "recycling", "jacobi"])
def test_a_seed_gives_the_same_text_with_any_certain_drafter(draft: str) -> None:
    sampled: dict[str, Any] = {"guide": ["temperature:1.3", "top-k:20"], "seed": 7, **OPTIONS}
    output = decodery.decode(model(), PROMPTS[1], draft=draft, **sampled)
    assert output.tokens == decodery.decode(model(), PROMPTS[1], **sampled).tokens
    assert output.tokens != decodery.decode(model(), PROMPTS[1], **sampled | {"seed": 8}).tokens


@pytest.mark.parametrize("lanes", [1, 512])
def test_rows_of_a_batch_equal_their_single_runs(lanes: int, monkeypatch: Any) -> None:
    """In one lane or in a lane each; sampled, with penalties that look back, each row with its own randomness."""
    monkeypatch.setattr("decodery.model.model.ROOMY", 0 if lanes > 1 else 10**6)
    sampled: dict[str, Any] = {"guide": ["repetition:1.3", "temperature:1.2"], "draft": "ngram", **OPTIONS}
    batch = decodery.decode(model(), [PROMPTS[0], PROMPTS[0]], seed=3, **sampled)
    alone = decodery.decode(model(), PROMPTS[0], seed=3, **sampled)
    assert batch[0].tokens == alone.tokens
    assert batch[1].tokens != alone.tokens
    assert batch[1].tokens == decodery.decode(model(), PROMPTS[0], n=2, seed=3, **sampled)[1].tokens


def test_samples_share_the_prompt() -> None:
    outputs = decodery.decode(model(), PROMPTS[1], n=4, guide="temperature:1.5", seed=0, **OPTIONS)
    assert len({tuple(output.tokens) for output in outputs}) == 4
    assert all(output.stats.cached_tokens == len(PROMPTS[1]) - 1 for output in outputs)


def test_a_session_reuses_what_is_common() -> None:
    session = model().session()
    first = decodery.decode(model(), PROMPTS[0], session=session, **OPTIONS)
    longer = PROMPTS[0] + first.tokens + [40, 41]
    second = decodery.decode(model(), longer, session=session, **OPTIONS)
    assert second.stats.cached_tokens >= len(longer) - 3
    assert second.tokens == plain("llama", longer)
    other = decodery.decode(model(), PROMPTS[2], session=session, guide="cfg:1.5,negative=w9", **OPTIONS)
    assert other.tokens == decodery.decode(model(), PROMPTS[2], guide="cfg:1.5,negative=w9", **OPTIONS).tokens
    assert decodery.decode(model(), longer, session=session, **OPTIONS).tokens == second.tokens


@pytest.mark.parametrize(
    "options", [{"draft": "model:width=2"}, {"guide": "cfg:1.5,negative=w9"}, {"n": 3, "guide": "temperature:1"}]
)
def test_a_kept_session_does_not_grow(options: dict[str, Any]) -> None:
    """What a call made beside the session (views, companions, forks) is gone by the next call."""
    session = model().session()
    for _ in range(3):
        decodery.decode(model(), PROMPTS[0], session=session, **OPTIONS | options)
    session.restart(PROMPTS[0])
    assert len(session.arena.nodes) == session.cached


@pytest.mark.parametrize("draft", ["none", "ngram", "model"])
def test_logprobs_are_the_models_own(draft: str) -> None:
    output = decodery.decode(model(), PROMPTS[1], draft=draft, guide="repetition:1.2", logprobs=3, **OPTIONS)
    words = list(PROMPTS[1])
    assert len(output.logprobs) == len(output.tokens)
    for token, chosen in zip(output.tokens, output.logprobs, strict=True):
        row = truth("llama", words).log_softmax(-1)
        assert chosen.token == token
        assert chosen.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [t for t, _ in chosen.top] == row.topk(3).indices.tolist()
        words.append(token)


def test_finish_reasons() -> None:
    greedy = plain("llama", PROMPTS[0], 40)
    ends = greedy.index(2) if 2 in greedy else None
    output = decodery.decode(model(), PROMPTS[0], max_new_tokens=40)
    assert output.finish_reason == ("length" if ends is None else "stop")
    assert decodery.decode(model(), PROMPTS[0], max_new_tokens=3, ignore_eos=True).finish_reason == "length"
    last = next(i for i, token in enumerate(greedy) if i > 2 and token not in greedy[:i])
    stop = decodery.decode(
        model(), PROMPTS[0], stop=f"w{greedy[last - 1]} w{greedy[last]}", max_new_tokens=40, ignore_eos=True
    )
    assert stop.finish_reason == "stop"
    assert stop.tokens == greedy[: last + 1]
    assert stop.text == "".join(f"w{token} " for token in greedy[: last - 1])
    assert decodery.decode(model(), PROMPTS[0], time_limit=0.0, **OPTIONS).finish_reason == "time"
    full = decodery.decode(model(), [5] * 90, max_new_tokens=50, ignore_eos=True, draft="jacobi")
    assert full.finish_reason == "length"
    assert len(full.tokens) == 6, "the context ends the answer"
    dead = decodery.decode(model(), PROMPTS[0], guide={"no-repeat-ngram": {"n": 1}}, max_new_tokens=80, ignore_eos=True)
    assert dead.finish_reason == "dead_end"
    assert len(dead.tokens) == VOCAB - 3


def test_pieces_make_the_text() -> None:
    pieces = decodery.stream(model(), "w5 w9 w12", draft="ngram", **OPTIONS)
    text = "".join(piece.text for piece in pieces)
    assert text == pieces.output.text == model().text.decode(pieces.output.tokens)


def test_pieces_tell_what_was_drafted() -> None:
    """Characters of accepted drafts, then the verifier's own; together the text."""
    pieces = list(decodery.stream(model(), "w5 w9 w12", draft="jacobi:window=3", max_new_tokens=30, ignore_eos=True))
    drafted = sum(piece.drafted for piece in pieces)
    accepted = [piece for piece in pieces if piece.step is not None and piece.step.verdict.path]
    assert accepted
    for piece in pieces:
        path = piece.step.verdict.path if piece.step is not None else ()
        assert len(piece.text[: piece.drafted].split()) == len(path)
    assert 0 < drafted < sum(len(piece.text) for piece in pieces)


def test_a_drafter_keeps_what_it_learned_only_if_you_keep_it() -> None:
    kept = Recycling()
    first, second = (decodery.decode(model(), PROMPTS[0], draft=kept, **OPTIONS).stats for _ in range(2))
    assert second.tokens_per_forward > first.tokens_per_forward
    again = decodery.decode(model(), PROMPTS[0], draft="recycling", **OPTIONS).stats
    assert again.tokens_per_forward == first.tokens_per_forward


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "the prompt is empty"),
        ([], {}, "the prompt is empty"),
        ([5] * 96, {}, "96 tokens, the model's context is 96"),
        ([5, VOCAB], {}, "whose ids are 0 to 60"),
        ([5, "x"], {}, "token ids; str"),
        ([{"role": "user", "content": "x"}], {}, "no chat template"),
        ([5], {"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ([5], {"stop": [""]}, "stop takes non-empty texts and token ids"),
        ([5], {"n": 2}, "add a guide that samples"),
        ([5], {"n": 0}, "n must be at least 1"),
        ([[5], [6]], {"n": 2}, "answers of a greedy decoding would be equal"),
        ([5], {"draft": "recyclin"}, "Did you mean 'recycling'"),
    ],
)
def test_bad_input_is_named(prompt: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DecoderyError, match=message):
        decodery.decode(model(), prompt, **options)


def test_another_vocabulary_cannot_draft() -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    from .tiny import SIZES

    small = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | {"vocab_size": 40}))
    with pytest.raises(DecoderyError, match="another vocabulary"):
        decodery.decode(model(), PROMPTS[0], draft={"model": {"path": Model(small, tokenizer())}})


def test_nan_logits_are_an_error() -> None:
    broken = copy.deepcopy(network("llama"))
    broken_model = Model(broken, tokenizer())
    assert broken_model.can
    with torch.no_grad():
        broken.get_input_embeddings().weight[5] = torch.nan
    for guide in ([], ["temperature:1"]):
        with pytest.raises(BadLogits, match="NaN"):
            decodery.decode(broken_model, [5, 6], guide=guide, max_new_tokens=3)


def test_prompts_must_not_be_mixed_up() -> None:
    with pytest.raises(BadPrompt):
        decodery.decode(model(), [["w5"], [3]], max_new_tokens=2)


def caches_left(request: Callable[[], object]) -> int:
    """How many caches outlive a request until Python looks for cycles."""

    def arenas() -> int:
        return sum(type(thing) is SlotArena for thing in gc.get_objects())

    request()
    gc.collect()
    before = arenas()
    gc.disable()
    try:
        request()
        return arenas() - before
    finally:
        gc.enable()


@pytest.mark.parametrize("draft", [d for d in ROLES["draft"].parts if d != "datastore"])
def test_a_request_leaves_no_cache_behind(draft: str) -> None:
    """Freed at once: a cache is a few objects to Python, but hundreds of megabytes."""
    options = OPTIONS | {"draft": {draft: {"path": second("llama")}} if draft == "pearl" else EAGER.get(draft, draft)}
    assert caches_left(lambda: decodery.decode(model(), PROMPTS[0], **options)) == 0


@pytest.mark.parametrize("pieces", [0, 2])
def test_a_stream_left_half_way_leaves_no_cache_behind(pieces: int) -> None:
    """Nor one that was never begun."""

    def some() -> None:
        running = decodery.stream(model(), PROMPTS[0], **OPTIONS)
        for _ in range(pieces):
            next(running)

    assert caches_left(some) == 0
