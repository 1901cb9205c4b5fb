"""``model.generate(..., custom_generate=...)`` against ``model.generate(...)``: the same answers, scores, streams, errors."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LogitsProcessor,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StopStringCriteria,
    SynthIDTextWatermarkingConfig,
    T5Config,
    T5ForConditionalGeneration,
    TextIteratorStreamer,
)
from transformers.generation.streamers import BaseStreamer

import decodery
import decodery.hf
from decodery.core.chooser import Chooser
from decodery.core.errors import DecoderyError, PartsClash, UnknownPart
from decodery.core.roles import Drafter, Laws
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget
from decodery.draft.model import ModelDraft
from decodery.draft.ngram import NGram
from decodery.hf import CustomGenerate, custom_generate
from decodery.model import probe
from decodery.model.session import Session

from .tiny import SIZES, VOCAB, network

DRAFTS = ["none", "ngram", "recycling", "model"]
PAD, NEW = 0, 24
TENSOR = torch.Tensor


def prompt(length: int = 12, seed: int = 1, rows: int = 1) -> TENSOR:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(*lengths: int) -> dict[str, TENSOR]:
    """A left-padded batch of prompts of these lengths."""
    longest = max(lengths)
    ids, mask = torch.full((len(lengths), longest), PAD), torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, longest - length :] = prompt(length, row)[0]
        mask[row, longest - length :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def drafted(made: CustomGenerate) -> int:
    return sum(stats.drafted for stats in made.last_stats)


@dataclass
class Oracle(Drafter):
    """Knows the answers and drafts three tokens of one, a wrong one beside the first and every other third one wrong."""

    answers: tuple[tuple[int, ...], ...] = ()

    def begin(self, session: Session, laws: Laws) -> None:
        self._turn = 0

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree, length, node = TokenTree(), len(session.tokens), ROOT
        self._turn += 1
        for answer in self.answers:
            if answer[:length] == tuple(session.tokens):
                for nth, token in enumerate(answer[length : length + min(3, budget.depth)]):
                    if nth == 0:
                        tree.add((token + 1) % VOCAB)
                    node = tree.add((token + (nth + self._turn) % 4 // 3) % VOCAB, node)
                break
        return tree


def oracle(sequences: TENSOR, mask: TENSOR) -> CustomGenerate:
    """Ours, drafting from these answers to prompts of this mask."""
    keep = torch.nn.functional.pad(mask.bool(), (0, sequences.shape[1] - mask.shape[1]), value=True)
    answers = tuple(tuple(row[kept].tolist()) for row, kept in zip(sequences, keep, strict=True))
    made: CustomGenerate = custom_generate(draft=Oracle(answers))
    return made


def same(name: str, draft: str = "oracle", helped: bool = True, **asked: Any) -> Any:
    """Run both loops, compare, and return what ours gave; with a drafter, some drafts must have been accepted."""
    asked = {"max_new_tokens": NEW, "pad_token_id": PAD} | asked
    expected = network(name).generate(**asked)
    sequences = getattr(expected, "sequences", expected)
    mask = asked.get("attention_mask", torch.ones_like(asked["input_ids"]))
    made = oracle(sequences, mask) if draft == "oracle" else custom_generate(draft=draft)
    ours = network(name).generate(custom_generate=made, **asked)
    assert type(ours) is type(expected)
    assert torch.equal(getattr(ours, "sequences", ours), sequences)
    assert (drafted(made) > 0) == (draft != "none")
    if helped and draft != "none":
        accepted = sum(stats.accepted for stats in made.last_stats)
        assert 0 < accepted <= drafted(made) - (draft == "oracle")  # and some were refused
    return ours


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_greedy(name: str, draft: str) -> None:
    same(name, draft, input_ids=prompt(), max_new_tokens=40)


def test_a_model_without_trees() -> None:
    same("mamba", input_ids=prompt(), max_new_tokens=40)


def test_passed_as_it_is() -> None:
    expected = network("llama").generate(prompt(), max_new_tokens=NEW)
    assert torch.equal(
        expected, network("llama").generate(prompt(), max_new_tokens=NEW, custom_generate=custom_generate)
    )
    beside = network("llama").generate(prompt(), max_new_tokens=NEW, custom_generate=custom_generate, draft="ngram")
    assert torch.equal(expected, beside)
    with pytest.raises(UnknownPart, match="nosuch"):
        network("llama").generate(prompt(), custom_generate=custom_generate, draft="nosuch")


def test_default_length_is_that_of_transformers() -> None:
    with pytest.warns(UserWarning, match="max_length"):
        assert same("llama", input_ids=prompt(), max_new_tokens=None).shape[1] == 12 + 20


def test_generation_config_object() -> None:
    config = GenerationConfig(max_new_tokens=15, repetition_penalty=2.0, pad_token_id=PAD)
    expected = network("llama").generate(prompt(), generation_config=config)
    ours = network("llama").generate(prompt(), generation_config=config, custom_generate=custom_generate(draft="ngram"))
    assert torch.equal(ours, expected)
    assert not torch.equal(ours, network("llama").generate(prompt(), max_new_tokens=15))


class Ban(LogitsProcessor):
    """Forbids what follows from the last token, in place."""

    def __call__(self, input_ids: TENSOR, scores: TENSOR) -> TENSOR:
        for row, last in enumerate(input_ids[:, -1].tolist()):
            scores[row, (last + 7) % VOCAB] = -torch.inf
            scores[row, (last * 5) % VOCAB] += 3.0
        return scores


def even_or_odd(row: int, ids: TENSOR) -> list[int]:
    """Row 0 may use even tokens only, row 1 odd ones, and so on."""
    return [token for token in range(3, VOCAB) if token % 2 == row % 2]


PROCESSORS: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 3.0},
    "no repeated 2-grams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[t] for t in range(3, 40)]},
    "bias": {"sequence_bias": {(44,): 12.0, (45, 46): 20.0}},
    "allowed by row": {"prefix_allowed_tokens_fn": even_or_odd},
    "of one's own": {"logits_processor": [Ban()]},
    "prompt n-grams": {"encoder_no_repeat_ngram_size": 1},
    "prompt penalty": {"encoder_repetition_penalty": 5.0},
    "suppressed at the beginning": {"begin_suppress_tokens": list(range(3, 50))},
    "watermark": {"watermarking_config": {"bias": 9.0, "greenlist_ratio": 0.3}},
}


@pytest.mark.parametrize("asked", PROCESSORS.values(), ids=PROCESSORS)
def test_processors(asked: dict[str, Any]) -> None:
    looping = torch.cat([prompt(), torch.tensor([[18, 25, 18, 25, 18, 18, 18]])], -1)
    mattered = 0
    for batch in ({"input_ids": prompt()}, {"input_ids": looping}, padded(9, 4, 12)):
        plain = network("llama").generate(**batch, max_new_tokens=NEW, pad_token_id=PAD)
        ours = same("llama", **batch, **asked)
        mattered += ours.shape != plain.shape or not torch.equal(ours, plain)
    assert mattered


@pytest.mark.parametrize("negative", [None, prompt(5, 9)], ids=["last token", "negative prompt"])
@pytest.mark.parametrize("draft", ["oracle", "model"])
def test_guidance(negative: TENSOR | None, draft: str) -> None:
    asked = {"guidance_scale": 1.7, "negative_prompt_ids": negative, "repetition_penalty": 1.2}
    ours = same("llama", draft, draft == "oracle", input_ids=prompt(), **asked)
    assert not torch.equal(ours, network("llama").generate(prompt(), max_new_tokens=NEW, repetition_penalty=1.2))


def test_guidance_of_each_row() -> None:
    negative = prompt(5, 9, rows=2)
    ours = same("llama", input_ids=prompt(rows=2), guidance_scale=1.7, negative_prompt_ids=negative)
    other = same("llama", input_ids=prompt(rows=2), guidance_scale=1.7, negative_prompt_ids=negative.flip(0))
    assert not torch.equal(ours[0], other[0])
    assert not torch.equal(ours[1], other[1])


# Sampling


SAMPLING: dict[str, dict[str, Any]] = {
    "nucleus": {"temperature": 0.8, "top_k": 20, "top_p": 0.9},
    "min-p": {"top_k": 0, "min_p": 0.05, "repetition_penalty": 1.5},
    "typical": {"top_k": 0, "typical_p": 0.8},
    "cutoffs": {"top_k": 0, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02},
    "top-h": {"top_k": 0, "top_h": 0.5},
}


@pytest.mark.parametrize("draft", ["none", "model"])
@pytest.mark.parametrize("asked", SAMPLING.values(), ids=SAMPLING)
def test_sampled_laws(asked: dict[str, Any], draft: str) -> None:
    """At each position the law equals the one that transformers draws from after the same words."""
    made = custom_generate(draft=draft)
    model = network("llama")
    torch.manual_seed(3)
    ours = model.generate(
        prompt(), custom_generate=made, max_new_tokens=12, do_sample=True, output_scores=True,
        return_dict_in_generate=True, **asked,
    )  # fmt: skip
    assert (drafted(made) > 0) == (draft == "model")
    for at, scores in enumerate(ours.scores):
        words = ours.sequences[:, : 12 + at]
        theirs = model.generate(
            words,
            attention_mask=torch.ones_like(words),
            max_new_tokens=1,
            do_sample=True,
            output_scores=True,
            return_dict_in_generate=True,
            **asked,
        )
        torch.testing.assert_close(scores, theirs.scores[0], rtol=1e-4, atol=1e-5)
        assert scores[0, ours.sequences[0, 12 + at]] > -torch.inf


def test_sampled_frequencies() -> None:
    """400 answers to one prompt: first tokens as often as their law says, and the second answer is not the first."""
    torch.manual_seed(0)
    made = custom_generate(draft="ngram")
    ours = network("llama").generate(
        prompt(), custom_generate=made, do_sample=True, temperature=2.0, top_k=4, num_return_sequences=400,
        max_new_tokens=2, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    law = ours.scores[0][0].softmax(-1)
    assert law.max() < 0.9
    counts = torch.bincount(ours.sequences[:, 12], minlength=VOCAB)
    assert ((counts - 400 * law).abs() <= 4.5 * (400 * law * (1 - law)).sqrt()).all()


def test_seeds() -> None:
    def run(seed: int | None, draft: str = "ngram") -> list[int]:
        if seed is not None:
            torch.manual_seed(seed)
        made = custom_generate(draft=draft)
        answer = network("llama").generate(
            prompt(), custom_generate=made, do_sample=True, temperature=2.0, max_new_tokens=NEW
        )
        assert (drafted(made) > 0) == (draft == "ngram")
        tokens: list[int] = answer[0].tolist()
        return tokens

    assert run(5) == run(5) == run(5, "none")  # certain drafts change no choice
    assert run(5) != run(6)
    assert run(5) != run(None)  # the generator has moved on


def test_sampling_of_one_token_is_greedy() -> None:
    expected = network("llama").generate(prompt(), max_new_tokens=NEW)
    made = oracle(expected, torch.ones(1, 12))
    ours = network("llama").generate(prompt(), custom_generate=made, do_sample=True, top_k=1, max_new_tokens=NEW)
    assert drafted(made) > 0
    assert torch.equal(ours, expected)


def test_bad_words_never_appear() -> None:
    bad = list(range(3, 55))
    ours = network("llama").generate(
        prompt(), custom_generate=custom_generate(draft="ngram"), do_sample=True, temperature=3.0, max_new_tokens=60,
        bad_words_ids=[[token] for token in bad],
    )  # fmt: skip
    assert not set(ours[0, 12:].tolist()) & set(bad)


def test_own_guides_follow() -> None:
    made = custom_generate(draft="ngram", guide={"logit-bias": {"bias": {50: 100.0}}})
    ours = network("llama").generate(prompt(), custom_generate=made, max_new_tokens=8)
    assert ours[0, 12:].tolist() == [50] * 8


# Ends


def ends(token_at: int, **asked: Any) -> dict[str, Any]:
    """Make a token of the plain answer the end of sequence."""
    plain = network("llama").generate(prompt(), max_new_tokens=NEW, **asked)[0, 12:].tolist()
    assert plain.index(plain[token_at]) == token_at
    return {"eos_token_id": plain[token_at], **asked}


def test_end_of_sequence() -> None:
    asked = ends(5, repetition_penalty=2.0)
    assert same("llama", input_ids=prompt(), **asked).shape[1] == 12 + 6
    two = {**asked, "eos_token_id": [60, asked["eos_token_id"]]}
    assert same("llama", input_ids=prompt(), **two).shape[1] == 12 + 6


@pytest.mark.parametrize("asked", [{"min_new_tokens": 11}, {"min_length": 23}])
def test_least_length(asked: dict[str, Any]) -> None:
    end = ends(5, repetition_penalty=2.0)
    assert same("llama", input_ids=prompt(), **end, **asked).shape[1] >= 12 + 11
    batch = padded(12, 5)
    batch["input_ids"][0] = prompt()
    same("llama", **batch, **end, **asked)


class Says(StoppingCriteria):
    """Ends a row at a token, or when its scores so far say so; sees that the scores are there."""

    def __init__(self, token: int = -1, scored: int = 0) -> None:
        self.token, self.scored, self.seen = token, scored, []  # type: ignore[var-annotated]

    def __call__(self, input_ids: TENSOR, scores: Any, **_: Any) -> TENSOR:
        self.seen.append((input_ids.tolist(), None if scores is None else len(scores)))
        if self.scored:
            return torch.stack([one.max(-1).values for one in scores]).gt(0).sum(0) >= self.scored
        return input_ids[:, -1] == self.token


@pytest.mark.parametrize("draft", ["none", "oracle"])
def test_criteria_cut_inside_a_step(draft: str) -> None:
    answer = network("llama").generate(prompt(), max_new_tokens=40)
    plain = answer[0].tolist()
    made = oracle(answer, torch.ones(1, 12)) if draft == "oracle" else custom_generate()
    cut = 0
    for at in [at for at in range(12, len(plain)) if plain[at] not in plain[12:at]]:
        criterion = Says(plain[at])
        ours = network("llama").generate(
            prompt(), custom_generate=made, max_new_tokens=40, stopping_criteria=[criterion]
        )
        assert ours[0].tolist() == plain[: at + 1]
        assert criterion.seen == [([plain[: end + 1]], None) for end in range(12, at + 1)]
        cut += made.last_stats[0].tokens < made.last_stats[0].forwards + made.last_stats[0].accepted
    assert (cut > 0) == (draft == "oracle")  # some answers ended with a draft, not with the verifier's token


def test_criteria_see_scores() -> None:
    asked: dict[str, Any] = {"return_dict_in_generate": True, "output_scores": True, "input_ids": prompt()}
    ours = same("llama", **asked, stopping_criteria=[Says(scored=5)])
    assert 5 <= len(ours.scores) < NEW
    criterion = Says()
    network("llama").generate(**asked, custom_generate=custom_generate(draft="ngram"), stopping_criteria=[criterion])
    assert [count for _, count in criterion.seen] == list(range(1, len(criterion.seen) + 1))


def test_time() -> None:
    made = custom_generate()
    ours = network("llama").generate(prompt(), custom_generate=made, max_time=1e-9, max_new_tokens=50)
    assert ours.shape[1] == 13
    ours = network("llama").generate(prompt(), custom_generate=made, max_time=600.0, max_new_tokens=50)
    assert ours.shape[1] == 62


def letters() -> PreTrainedTokenizerFast:
    """Token i is written as the i-th letter from "A"."""
    tokenizer = Tokenizer(models.WordLevel({chr(65 + i): i for i in range(VOCAB)}, unk_token="A"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_stop_strings() -> None:
    plain = network("llama").generate(prompt(), max_new_tokens=NEW)[0].tolist()
    text = "".join(chr(65 + token) for token in plain[12:])
    end = next(end for end in range(3, len(text)) if text.find(text[end - 2 : end]) == end - 2)
    criterion = StopStringCriteria(letters(), text[end - 2 : end])
    assert same("llama", input_ids=prompt(), stopping_criteria=[criterion]).shape[1] == 12 + end


def test_context_is_an_end_and_said() -> None:
    long = prompt(90)
    with pytest.warns(UserWarning, match="context of 96"):
        ours = network("gpt2").generate(long, custom_generate=custom_generate(), max_new_tokens=30)
    assert torch.equal(ours, network("gpt2").generate(long, max_new_tokens=6))


# Batches


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_left_padded_batch(name: str, draft: str) -> None:
    batch = padded(9, 3, 12, 1)
    ours = same(name, draft, **batch)
    for row, mask, answer in zip(batch["input_ids"], batch["attention_mask"], ours, strict=True):
        alone = network(name).generate(row[mask.bool()][None], max_new_tokens=NEW, pad_token_id=PAD)
        new = alone[0, int(mask.sum()) :]
        assert torch.equal(answer[len(row) : len(row) + len(new)], new)
        assert (answer[len(row) + len(new) :] == PAD).all()


def test_rows_end_at_their_own_time() -> None:
    batch = padded(9, 12)
    batch["input_ids"][1] = prompt()
    ours = same("llama", **batch, **ends(4, repetition_penalty=2.0))
    assert (ours[1, 12 + 5 :] == PAD).all()
    assert ours.shape[1] > 12 + 5


def test_padding_is_needed() -> None:
    model = copy.deepcopy(network("llama"))
    model.generation_config = GenerationConfig()
    stop = [Says(5)]
    with pytest.raises(ValueError, match="pad_token_id"):
        model.generate(prompt(rows=2), custom_generate=custom_generate(), stopping_criteria=stop, max_new_tokens=5)
    assert model.generate(prompt(rows=2), custom_generate=custom_generate(), max_new_tokens=5).shape == (2, 17)
    assert model.generate(prompt(), custom_generate=custom_generate(), stopping_criteria=stop).shape[0] == 1


@pytest.mark.parametrize("padding", ["right", "middle", "everywhere"])
def test_other_padding(padding: str) -> None:
    batch = padded(12, 12)
    batch["attention_mask"][0, {"right": slice(9, 12), "middle": slice(4, 6), "everywhere": slice(0, 12)}[padding]] = 0
    with pytest.raises(DecoderyError, match="attention_mask"):
        network("llama").generate(**batch, custom_generate=custom_generate(), max_new_tokens=5)


# Output


@pytest.mark.parametrize("draft", ["none", "oracle"])
def test_scores_and_logits(draft: str) -> None:
    asked = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True, "repetition_penalty": 1.5}
    ours = same("llama", draft, input_ids=prompt(), **asked)
    theirs = network("llama").generate(prompt(), max_new_tokens=NEW, **asked)
    for name in ("scores", "logits"):
        assert len(ours[name]) == NEW
        for mine, other in zip(ours[name], theirs[name], strict=True):
            assert mine.dtype == other.dtype
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert not torch.equal(ours.scores[0], ours.logits[0])
    ours.scores[0].requires_grad_().sum().backward()  # ordinary tensors, not those of inference mode


def test_half_precision() -> None:
    """Processors, laws and what is returned are float32 whatever the model is, as in transformers."""
    model = copy.deepcopy(network("llama")).to(torch.bfloat16)
    asked = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True, "max_new_tokens": 6}
    asked |= {"do_sample": True, "guidance_scale": 1.5, "repetition_penalty": 1.2}
    ours = model.generate(prompt(), custom_generate=custom_generate(draft="recycling"), **asked)
    assert {one.dtype for one in (*ours.scores, *ours.logits)} == {torch.float32}
    theirs = model.generate(prompt(), **asked)
    torch.testing.assert_close(ours.scores[0], theirs.scores[0], rtol=0.05, atol=0.05)


def test_scores_of_ended_rows() -> None:
    """Of a row that has ended the scores say padding, with certainty; the others are those of transformers."""
    batch = padded(9, 12)
    batch["input_ids"][1] = prompt()
    asked = {**ends(4, repetition_penalty=2.0), "output_scores": True, "return_dict_in_generate": True}
    ours = same("llama", **batch, **asked)
    theirs = network("llama").generate(**batch, **asked, max_new_tokens=NEW, pad_token_id=PAD)
    for at, (mine, other) in enumerate(zip(ours.scores, theirs.scores, strict=True)):
        torch.testing.assert_close(mine[0], other[0], rtol=1e-4, atol=1e-5)
        if at < 5:
            torch.testing.assert_close(mine[1], other[1], rtol=1e-4, atol=1e-5)
        else:
            assert mine[1].softmax(-1)[PAD] == 1
    transitions = network("llama").compute_transition_scores(ours.sequences, ours.scores)
    assert (transitions[1, 5:] == 0).all()


def test_nothing_is_kept_unasked() -> None:
    ours = same("llama", input_ids=prompt(), return_dict_in_generate=True)
    assert set(ours) == {"sequences"}


class Log(BaseStreamer):
    def __init__(self) -> None:
        self.log: list[Any] = []

    def put(self, value: TENSOR) -> None:
        self.log.append(value.tolist())

    def end(self) -> None:
        self.log.append("end")


@pytest.mark.parametrize("draft", ["none", "oracle"])
@pytest.mark.parametrize("rows", ["one", "batch"])
def test_streamer(draft: str, rows: str) -> None:
    batch = padded(12) if rows == "one" else padded(9, 12, 4)
    batch["input_ids"][rows == "batch"] = prompt()
    asked = {**batch, **ends(4, repetition_penalty=2.0), "pad_token_id": PAD, "max_new_tokens": NEW}
    mine, theirs, direct = Log(), Log(), Log()
    answer = network("llama").generate(**asked, streamer=theirs)
    made = oracle(answer, batch["attention_mask"]) if draft == "oracle" else custom_generate()
    network("llama").generate(**asked, streamer=mine, custom_generate=made)
    assert mine.log == theirs.log
    assert len(mine.log) == answer.shape[1] - 12 + 2
    assert (drafted(made) > 0) == (draft == "oracle")
    network("llama").generate(**asked, streamer=direct, custom_generate=custom_generate)
    assert direct.log == theirs.log


def test_streams_what_outlives_a_row_cut_at_the_context() -> None:
    """One row is done with five tokens in two steps before the other one's third token fills the context."""
    batch, log = padded(60, 93), Log()
    alone = network("gpt2").generate(batch["input_ids"][:1, 33:], max_new_tokens=5, pad_token_id=PAD)
    made = oracle(alone, torch.ones(1, 60))
    with pytest.warns(UserWarning, match="context of 96"):
        ours = network("gpt2").generate(**batch, custom_generate=made, max_new_tokens=5, streamer=log, pad_token_id=PAD)
    assert [stats.forwards for stats in made.last_stats] == [2, 3]
    assert torch.equal(ours[0, 33:], alone[0])
    assert (ours[1, 96:] == PAD).all()
    assert log.log == [batch["input_ids"].tolist(), *ours[:, 93:].T.tolist(), "end"]


def test_text_streamer() -> None:
    streamer = TextIteratorStreamer(letters(), skip_prompt=True)  # type: ignore[arg-type]
    ours = network("llama").generate(prompt(), custom_generate=custom_generate(draft="ngram"), streamer=streamer)
    assert "".join(streamer) == "".join(chr(65 + token) for token in ours[0, 12:].tolist())


# Drafters by the names of transformers


def test_prompt_lookup() -> None:
    looped = torch.cat([prompt(5)] * 3, -1)
    same("llama", "none", input_ids=looped)
    made = custom_generate()
    network("llama").generate(
        looped, custom_generate=made, max_new_tokens=NEW, prompt_lookup_num_tokens=3, max_matching_ngram_size=3
    )
    assert drafted(made) > 0
    assert max(made.last_stats[0].drafted_at) == 3


def test_assistant_model() -> None:
    made = custom_generate()
    twin = copy.deepcopy(network("llama"))
    ours = network("llama").generate(
        prompt(), custom_generate=made, max_new_tokens=NEW, assistant_model=twin, num_assistant_tokens=4
    )
    assert torch.equal(ours, network("llama").generate(prompt(), max_new_tokens=NEW))
    assert made.last_stats[0].accepted == made.last_stats[0].drafted > 0
    assert max(made.last_stats[0].drafted_at) == 4
    stranger = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, "vocab_size": VOCAB + 1})).eval()
    with pytest.raises(PartsClash, match="vocabulary"):
        network("llama").generate(prompt(), custom_generate=made, assistant_model=stranger)


def test_early_exit() -> None:
    made = custom_generate()
    ours = network("llama").generate(prompt(), custom_generate=made, max_new_tokens=NEW, assistant_early_exit=2)
    assert torch.equal(ours, network("llama").generate(prompt(), max_new_tokens=NEW))
    assert drafted(made) > 0


def test_the_drafters_meant() -> None:
    usual = {"num_beams": 1, "do_sample": False, "num_assistant_tokens": 7}
    lookup = GenerationConfig(**usual, prompt_lookup_num_tokens=4, max_matching_ngram_size=3)
    early = GenerationConfig(**usual, assistant_early_exit=2)
    assert custom_generate()._recipe(lookup, None).draft == NGram(max=3, length=4)
    assert custom_generate()._recipe(early, None).draft == ModelDraft(length=7, layers=(0, 1))


def test_one_way_to_draft() -> None:
    with pytest.raises(DecoderyError, match="Recycling, NGram"):
        network("llama").generate(
            prompt(), custom_generate=custom_generate(draft="recycling"), prompt_lookup_num_tokens=3
        )


# Beams


BEAMS: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.3},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0},
    {"num_beams": 3, "early_stopping": "never", "num_return_sequences": 2},
    {"num_beams": 3, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "renormalize_logits": True},
    {"num_beams": 2, "prefix_allowed_tokens_fn": even_or_odd, "renormalize_logits": True},
    {"num_beams": 3, "stopping_criteria": [Says(45)]},
]


@pytest.mark.parametrize("asked", BEAMS, ids=lambda asked: "-".join(asked))
@pytest.mark.parametrize("batch", [{"input_ids": prompt()}, padded(9, 4)], ids=["one", "padded"])
def test_beams(asked: dict[str, Any], batch: dict[str, TENSOR]) -> None:
    end = {"eos_token_id": [2, 30, 31], "pad_token_id": 7, "return_dict_in_generate": True, "max_new_tokens": 12}
    theirs = network("llama").generate(**batch, **end, **asked, output_scores=True)
    ours = network("llama").generate(**batch, **end, **asked, custom_generate=custom_generate())
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, rtol=1e-4, atol=1e-4)
    del end["return_dict_in_generate"]
    assert torch.equal(
        ours.sequences, network("llama").generate(**batch, **end, **asked, custom_generate=custom_generate())
    )


# What is refused


REFUSED: dict[str, Callable[[], dict[str, Any]]] = {
    "penalty_alpha": lambda: {"penalty_alpha": 0.6, "top_k": 4},
    "dola_layers": lambda: {"dola_layers": "low"},
    "num_beam_groups": lambda: {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "force_words_ids": lambda: {"num_beams": 2, "force_words_ids": [[5]]},
    "constraints": lambda: {"num_beams": 2, "constraints": [object()]},
    "low_memory": lambda: {"low_memory": True},
    "use_mtp": lambda: {"use_mtp": True},
    "speculation_type": lambda: {"speculation_type": "dflash"},
    "assistant_ensemble_weight": lambda: {"assistant_ensemble_weight": 0.5},
    "assistant_confidence_threshold": lambda: {"assistant_early_exit": 2, "assistant_confidence_threshold": 0.9},
    "num_assistant_tokens_schedule": lambda: {
        "assistant_model": network("llama"), "num_assistant_tokens_schedule": "heuristic"
    },
    "use_cache": lambda: {"use_cache": False},
    "cache_implementation": lambda: {"cache_implementation": "static"},
    "max_cache_len": lambda: {"max_cache_len": 90},
    "prefill_chunk_size": lambda: {"prefill_chunk_size": 4},
    "output_attentions": lambda: {"output_attentions": True, "return_dict_in_generate": True},
    "output_hidden_states": lambda: {"output_hidden_states": True, "return_dict_in_generate": True},
    "past_key_values": lambda: {"past_key_values": DynamicCache()},
    "position_ids": lambda: {"position_ids": torch.arange(3, 15)[None]},
    "inputs_embeds": lambda: {"inputs_embeds": torch.zeros(1, 4, 32), "input_ids": None},
    "synced_gpus": lambda: {"synced_gpus": True},
    "watermarking_config": lambda: {
        "do_sample": True, "watermarking_config": SynthIDTextWatermarkingConfig(ngram_len=5, keys=[1, 2, 3])
    },
    "do_sample with num_beams": lambda: {"num_beams": 2, "do_sample": True},
    "output_scores with num_beams": lambda: {"num_beams": 2, "output_scores": True},
    "output_logits with num_beams": lambda: {"num_beams": 2, "output_logits": True},
    "streamer with num_beams": lambda: {"num_beams": 2, "streamer": Log()},
    "assistant_model with num_beams": lambda: {"num_beams": 2, "assistant_model": network("llama")},
    "prompt_lookup_num_tokens with num_beams": lambda: {"num_beams": 2, "prompt_lookup_num_tokens": 2},
    "RepetitionPenaltyLogitsProcessor.*renormalize_logits=True": lambda: {"num_beams": 2, "repetition_penalty": 1.2},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    asked = {"input_ids": prompt(), "max_new_tokens": 4} | REFUSED[name]()
    # transformers 5.24 hands on past_key_values under its new name
    with pytest.raises(DecoderyError, match=f"{name}|cache is not" if name == "past_key_values" else name):
        network("llama").generate(**asked, custom_generate=custom_generate())


def test_harmless_ways_to_say_the_default() -> None:
    asked = {
        "cache_implementation": "dynamic",
        "use_cache": True,
        "num_beam_groups": 1,
        "position_ids": torch.arange(12)[None],
    }
    same("llama", input_ids=prompt(), **asked)


def test_unknown_arguments() -> None:
    with pytest.raises(ValueError, match="temprature"):
        network("llama").generate(prompt(), custom_generate=custom_generate(), temprature=1.0)
    with pytest.raises(ValueError, match="draft"):  # the parts are chosen already
        network("llama").generate(prompt(), custom_generate=custom_generate(), draft="ngram")
    with pytest.raises(UnknownPart, match="temperature"):
        custom_generate(temperature=1.0)
    with pytest.raises(UnknownPart, match="ngramm"):
        custom_generate(draft="ngramm")


def test_encoder_decoders() -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, **sizes))
    with pytest.raises(DecoderyError, match="encoder-decoder"):
        model.generate(prompt(), custom_generate=custom_generate(), max_new_tokens=3)


def test_too_long_prompts() -> None:
    with pytest.raises(DecoderyError, match="context"):
        network("llama").generate(prompt(96), custom_generate=custom_generate(), max_new_tokens=3)


def test_nothing_left_to_choose() -> None:
    def nothing(ids: TENSOR, scores: TENSOR) -> TENSOR:
        return torch.full_like(scores, -torch.inf)

    with pytest.raises(DecoderyError, match="left no token"):
        network("llama").generate(prompt(), custom_generate=custom_generate(), logits_processor=[nothing])


# The wrapped model


def test_probed_once_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = []
    real = probe.examine
    monkeypatch.setattr(probe, "examine", lambda network: probes.append(1) or real(network))
    # A network of its own: transformers leaves hooks on those asked for hidden states, which cannot be pickled.
    model = AutoModelForCausalLM.from_config(network("llama").config).eval()
    for draft in ("none", "ngram"):
        model.generate(prompt(), custom_generate=custom_generate(draft=draft), max_new_tokens=4)
    assert len(probes) == 1
    twin = pickle.loads(pickle.dumps(model))
    answers = [one.generate(prompt(), custom_generate=custom_generate(), max_new_tokens=4) for one in (model, twin)]
    assert len(probes) == 2
    assert torch.equal(*answers)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_model_without_tokenizer() -> None:
    model = decodery.Model(network("llama"), None)
    with pytest.raises(DecoderyError, match="no tokenizer"):
        decodery.decode(model, "text")
    made = custom_generate(constrain="choice:options=[yes,no]")
    with pytest.raises(DecoderyError, match="no tokenizer"):
        network("llama").generate(prompt(), custom_generate=made)


def test_constraint(smollm2: Any) -> None:
    ids = torch.tensor([smollm2.encode("Is the sky blue? Answer:")])
    made = custom_generate(draft="ngram", constrain="choice:options=[yes,no]", tokenizer=smollm2.tokenizer)
    ours = smollm2.network.generate(ids, custom_generate=made, max_new_tokens=10)
    assert smollm2.text.decode(ours[0, ids.shape[1] :].tolist()) in ("yes", "no")
