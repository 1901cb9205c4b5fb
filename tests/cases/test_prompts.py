"""Prompts and ids of other types, models without a tokenizer, tokenizers with more tokens than the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import decodery
from decodery.core.errors import BadModel, BadPrompt, DecoderyError
from decodery.draft.recycling import Recycling
from decodery.guide.logit_bias import LogitBias

from .loading_common import byte_level, llama, sentencepiece


@pytest.fixture(scope="module")
def model() -> Any:
    return decodery.load((llama(257), byte_level()))


@pytest.fixture(scope="module")
def mute() -> Any:
    return decodery.load((llama(257), None))


SAME: list[Any] = [
    torch.tensor([5, 6]),
    torch.tensor([[5, 6]]),
    np.array([5, 6]),
    np.array([[5, 6]], np.int32),
    [np.int64(5), np.int64(6)],
    (5, 6),
    range(5, 7),
]


@pytest.mark.parametrize("prompt", SAME, ids=lambda prompt: f"{type(prompt).__name__} {prompt}")
def test_token_ids_of_any_type(prompt: Any, model: Any) -> None:
    expected = decodery.decode(model, [5, 6], max_new_tokens=3)
    assert decodery.decode(model, prompt, max_new_tokens=3).tokens == expected.tokens


def test_bytes_are_the_text_that_they_are_in_utf_8(model: Any) -> None:
    assert (
        model.tokens("h\u00e9llo".encode())
        == model.tokens(bytearray("h\u00e9llo".encode()))
        == model.tokens("h\u00e9llo")
    )


REFUSED: list[Any] = [
    b"\xff\xfe",
    None,
    5,
    5.0,
    np.int64(5),
    torch.tensor(5),
    torch.tensor([5.5]),
    torch.tensor([[5, 6], [7, 8]]),
    np.array(["a"]),
    [5.0],
    [True],
    ["a", None],
    {5, 6},
    {"role": "user", "content": "hi"},
    [{"role": "user", "content": "hi"}, 5],
    object(),
    [],
    "",
    "half a character: \udcff",
    [{"role": "user", "content": "\ud800"}],
    [-1],
    [257],
    [10**9],
]


@pytest.mark.parametrize("prompt", REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_is_no_prompt_is_refused_in_a_sentence(prompt: Any, model: Any) -> None:
    with pytest.raises(BadPrompt):
        decodery.decode(model, prompt, max_new_tokens=2)


def test_tokens_that_the_network_does_not_know() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<new>"])
    model = decodery.load((llama(257), tokenizer))
    for prompt in ([5, 257], "hi <new>", [[5], [257]]):
        with pytest.raises(BadPrompt, match=r"token 257 is none.*resize_token_embeddings"):
            decodery.decode(model, prompt, max_new_tokens=2)
    with pytest.raises(DecoderyError, match="257"):
        decodery.decode(model, [5, 6], guide="cfg:negative=<new>", max_new_tokens=2)
    with pytest.raises(DecoderyError, match="257"):
        decodery.decode(model, [5, 6], guide={"logit-bias": {"bias": {"<new>": 1.0}}}, max_new_tokens=2)
    short = llama(257)
    short.resize_token_embeddings(200)
    short.config.vocab_size = 257  # as where a file says so
    with pytest.raises(BadPrompt, match="ids are 0 to 199"):
        decodery.load((short, byte_level())).tokens([250])


def test_a_model_without_tokenizer_answers_token_ids(mute: Any, model: Any) -> None:
    expected = decodery.decode(model, [5, 6, 7], max_new_tokens=5, ignore_eos=True).tokens
    for options in ({}, {"draft": "recycling"}, {"draft": "ngram"}, {"draft": {"model": {"path": mute}}}):
        assert decodery.decode(mute, [5, 6, 7], max_new_tokens=5, ignore_eos=True, **options).tokens == expected
    batch = decodery.decode(mute, [[5, 6, 7], [8]], max_new_tokens=5, ignore_eos=True)
    assert [output.text for output in batch] == ["", ""]
    assert batch[0].tokens == expected
    drawn = decodery.decode(mute, [5, 6], n=2, guide="temperature:0.8", seed=1, max_new_tokens=4, logprobs=2)
    assert len(drawn) == 2
    beam = decodery.decode(mute, [5, 6], search="beam:width=2", max_new_tokens=4)
    assert len(beam.tokens) == 4
    assert decodery.decode(mute, [5, 6], draft={"model": {"path": model}}, max_new_tokens=3).tokens


def test_a_model_without_tokenizer_says_what_needs_one(mute: Any) -> None:
    wants: list[tuple[Any, dict[str, Any]]] = [
        ("text", {}),
        ([{"role": "user", "content": "hi"}], {}),
        ([5, 6], {"stop": "x"}),
        ([5, 6], {"constrain": "choice:[yes,no]"}),
        ([5, 6], {"constrain": "regex:[a-z]+"}),
        ([5, 6], {"guide": "cfg:negative=x"}),
        ([5, 6], {"guide": {"logit-bias": {"bias": {"yes": 1.0}}}}),
    ]
    for prompt, options in wants:
        with pytest.raises(BadModel, match=r"has no tokenizer.*give token ids"):
            decodery.decode(mute, prompt, max_new_tokens=2, **options)


def test_a_model_without_tokenizer_has_a_fingerprint(mute: Any, model: Any, tmp_path: Path) -> None:
    """A drafter's memory is kept for it, and is not taken for that of a model with a tokenizer."""
    assert mute.fingerprint() == "no tokenizer, 257 tokens"
    draft = Recycling()
    decodery.decode(mute, [5, 6, 7], draft=draft, max_new_tokens=5)
    decodery.save_memory(draft, mute, tmp_path / "memory")
    assert decodery.load_memory(Recycling(), mute, tmp_path / "memory") == ["recycling"]
    with pytest.raises(DecoderyError, match="another tokenizer"):
        decodery.load_memory(Recycling(), model, tmp_path / "memory")


@pytest.mark.parametrize("add_eos", [False, True])
def test_the_bias_of_a_text_goes_to_its_own_token(add_eos: bool) -> None:
    """Not to the special tokens that the tokenizer puts before and behind every text."""
    tokenizer = sentencepiece(["\u2581yes", "\u2581no"], add_eos)
    model = decodery.load((llama(len(tokenizer)), tokenizer))
    (wanted,) = tokenizer("yes", add_special_tokens=False).input_ids
    assert list(LogitBias({"yes": 50.0}).bind(model)._bias) == [wanted]
    out = decodery.decode(model, [1, 5, 6], guide={"logit-bias": {"bias": {"yes": 50.0}}}, max_new_tokens=3)
    assert out.tokens == [wanted] * 3
