"""A model thinned to a part of its layers, against transformers itself with those layers taken out by hand."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, PreTrainedModel

import decodery
from decodery.change.layer_speedup import thin
from decodery.core.errors import BadModel, PartsClash
from decodery.core.values import Cap
from decodery.model.model import Model
from decodery.model.torch.backend import cache_name
from decodery.model.turn import forward
from decodery.model.variant import spread
from decodery.run.recipe import part
from decodery.run.registry import ROLES, find

from .test_decode import EAGER, PROMPTS, model, tokenizer
from .tiny import SIZES

DEPTH, SPEEDUP, NEW = 9, 2, 12
KEPT = spread(DEPTH, SPEEDUP)
OPTIONS: dict[str, Any] = {"max_new_tokens": NEW, "ignore_eos": True}


def deep() -> PreTrainedModel:
    torch.manual_seed(3)
    config = LlamaConfig(**SIZES | {"num_hidden_layers": DEPTH})
    network: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return network


NETWORK = deep()
WHOLE = Model(NETWORK, tokenizer(), "deep")
THIN = thin(WHOLE, SPEEDUP)


@torch.inference_mode()
def by_hand(prompt: list[int]) -> list[int]:
    """Greedy decoding by a second network of the kept layers, which goes on from the first one's cache of the prompt."""
    short = copy.deepcopy(NETWORK)
    short.model.layers = torch.nn.ModuleList([short.model.layers[i] for i in KEPT])
    short.config.num_hidden_layers = len(KEPT)
    for i, layer in enumerate(short.model.layers):
        layer.self_attn.layer_idx = i
    whole, cache = DynamicCache(), DynamicCache()
    answer = NETWORK(torch.tensor([prompt]), **{cache_name(NETWORK): whole}, use_cache=True)
    for i, kept in enumerate(KEPT):
        full = whole.layers[kept]
        cache.update(full.keys, full.values, i)
    words = [int(answer.logits[0, -1].argmax())]
    while len(words) < NEW:
        answer = short(torch.tensor([words[-1:]]), **{cache_name(short): cache}, use_cache=True)
        words.append(int(answer.logits[0, -1].argmax()))
    return words


def test_new_tokens_go_through_the_kept_layers_and_the_prompt_through_all() -> None:
    answers = [decodery.decode(THIN, prompt, **OPTIONS) for prompt in PROMPTS]
    assert [answer.tokens for answer in answers] == [by_hand(prompt) for prompt in PROMPTS]
    assert not any(answer.stats.lossless for answer in answers)
    whole = [decodery.decode(WHOLE, prompt, **OPTIONS) for prompt in PROMPTS]
    assert all(answer.stats.lossless for answer in whole)
    assert all(a.tokens[0] == b.tokens[0] for a, b in zip(answers, whole, strict=True))  # the prompt's own row
    assert [a.tokens for a in answers] != [a.tokens for a in whole]


def test_calls_of_layers() -> None:
    calls: Counter[int] = Counter()
    hooks = [
        layer.self_attn.register_forward_hook(lambda *_, i=i: calls.update([i]))
        for i, layer in enumerate(NETWORK.model.layers)
    ]
    try:
        decodery.decode(THIN, PROMPTS[0], **OPTIONS)
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == {i: NEW if i in KEPT else 1 for i in range(DEPTH)}


def test_load_takes_the_backend_that_can(tmp_path: Path) -> None:
    NETWORK.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = decodery.load(str(tmp_path), backend="auto", change=f"layer-speedup:{SPEEDUP}")
    assert decodery.decode(loaded, PROMPTS[0], **OPTIONS).tokens == by_hand(PROMPTS[0])


def test_all_layers_are_the_model_itself() -> None:
    for prompt in PROMPTS:
        assert (
            decodery.decode(thin(WHOLE, 1), prompt, **OPTIONS).tokens
            == decodery.decode(WHOLE, prompt, **OPTIONS).tokens
        )


def test_a_batch_of_different_lengths() -> None:
    prompts = [*PROMPTS, [11, 4, 11, 4, 11, 4, 11]]
    together = decodery.decode(THIN, prompts, **OPTIONS)
    assert [answer.tokens for answer in together] == [by_hand(prompt) for prompt in prompts]


@pytest.mark.parametrize("draft", [name for name in ROLES["draft"].parts if name != "datastore"])
def test_drafts_are_exact_for_the_thinned_model(draft: str) -> None:
    options = dict(OPTIONS, draft=EAGER.get(draft, draft))
    if not part("draft", options["draft"]).needs <= THIN.can:
        with pytest.raises(PartsClash, match=r"layer subsets|hidden states"):
            decodery.decode(THIN, PROMPTS[1], **options)
        return
    if "path" in find("draft", draft).part.__dataclass_fields__:
        options["draft"] = {draft: {"path": WHOLE}}
    for prompt in PROMPTS:
        assert decodery.decode(THIN, prompt, **options).tokens == by_hand(prompt)


def test_drafts_are_taken() -> None:
    answer = decodery.decode(THIN, PROMPTS[1], draft="recycling", max_new_tokens=40, ignore_eos=True)
    assert answer.stats.tokens_per_forward > 1.2


def test_a_conversation_computes_the_past_answer_anew() -> None:
    """The cache of an answer lacks the skipped layers, so it cannot be that of the next prompt."""
    session = THIN.session(PROMPTS[0])
    first = decodery.decode(THIN, PROMPTS[0], session=session, **OPTIONS)
    prompt = [*PROMPTS[0], *first.tokens, 7, 8]
    assert decodery.decode(THIN, prompt, session=session, **OPTIONS).tokens == by_hand(prompt)


def test_beams_and_contrast_run_through_the_kept_layers() -> None:
    beam = decodery.decode(THIN, PROMPTS[0], search="beam:width=1", **OPTIONS)
    assert beam.tokens == by_hand(PROMPTS[0])
    wide = decodery.decode(THIN, PROMPTS[0], search="beam:3", **OPTIONS)
    assert wide.candidates[0].score >= beam.candidates[0].score
    for tokens, score in wide.candidates:  # each of its laws is that of a pass of its own
        session, total = THIN.session(PROMPTS[0]), 0.0
        for token in tokens:
            total += float(forward(session).logits[-1].log_softmax(-1)[token])
            session.commit([token])
        assert score == pytest.approx(total / len(tokens), abs=1e-4)
    guided = decodery.decode(THIN, PROMPTS[0], guide="cfg:scale=1", **OPTIONS)
    assert guided.tokens == by_hand(PROMPTS[0])


def test_long_prompts_and_what_was_forced() -> None:
    """Stretches end where the prompt does: what follows it goes another way."""
    prompt = [3 + i * i % 50 for i in range(70)]
    session = THIN.session(prompt)
    session.commit(forced := [9, 8])
    row = forward(session).logits[0]
    other = THIN.session(prompt)
    forward(other)
    other.commit(forced)
    assert torch.allclose(row, forward(other).logits[0], atol=1e-5)


def test_what_cannot_be_thinned() -> None:
    with pytest.raises(BadModel, match="give at most 4"):
        thin(WHOLE, 5)
    for wrong in (0, -1, 1.5, "2"):
        with pytest.raises(BadModel, match="whole number from 1 to 4"):
            thin(WHOLE, wrong)  # type: ignore[arg-type]
    with pytest.raises(BadModel, match="already"):
        thin(THIN, 2)
    with pytest.raises(BadModel, match="cannot skip layers"):
        thin(model("mamba"), 2)
    assert THIN.can == WHOLE.can - {Cap.LAYERS, Cap.HALVES, Cap.HIDDEN}
    with pytest.raises(PartsClash, match="path="):
        decodery.decode(THIN, PROMPTS[0], draft="model", max_new_tokens=2)
