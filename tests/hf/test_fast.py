"""The fast Linear layers: the same answers as the network's own, and nothing left of them afterwards."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM

import decodery
from decodery.change.int4 import four_bits
from decodery.change.lib.rounding import eight_bits, round_weights
from decodery.model.torch import fast as module
from decodery.model.torch.fast import ROWS, WAYS, Choice, choose, fast

from .test_decode import OPTIONS, PROMPTS, plain, tokenizer
from .tiny import CONFIGS, VOCAB, network

CLOSE = {name: {"atol": 2e-5, "rtol": 1e-4} for name in CONFIGS} | {"mamba": {"atol": 2e-4, "rtol": 1e-3}}
"""Mamba's exponentials enlarge what was rounded."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_the_same_and_all_is_undone(name: str, way: str, monkeypatch: Any) -> None:
    chosen = Choice(dict.fromkeys(ROWS, way), dict.fromkeys(ROWS, 1.0))
    monkeypatch.setattr(module, "_choice", lambda _: chosen)
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    words = torch.randint(0, VOCAB, (2, 7), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        want = model(words).logits, model(words[:1, :1]).logits, model(words.repeat(1, 6)).logits
        with fast(model) as choices:
            got = model(words).logits, model(words[:1, :1]).logits, model(words.repeat(1, 6)).logits
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE[name])
        again = model(words).logits
    assert (choices != {}) == any(type(m) is nn.Linear for m in model.modules())
    torch.testing.assert_close(again, want[0], **CLOSE[name])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any("forward" in vars(m) for m in model.modules())
    assert all(m.weight.is_contiguous() for m in model.modules() if type(m) is nn.Linear)


def test_a_failure_inside_leaves_the_network_as_it_was() -> None:
    model = network("llama")
    with pytest.raises(KeyboardInterrupt), fast(model):
        raise KeyboardInterrupt
    assert not any("forward" in vars(m) for m in model.modules())


def test_projections_of_one_input_are_computed_at_once() -> None:
    model = network("llama")
    with fast(model) as choices:
        assert (4 * 8 + 2 * 2 * 8, 32) in choices  # query, key and value
        assert (2 * 48, 32) in choices  # gate and up
        attention: Any = model.model.layers[0].self_attn
        x, y = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
        alone = [projection(x) for projection in (attention.v_proj, attention.k_proj)]  # in no particular order
        mixed = [attention.q_proj(x), attention.k_proj(y), attention.v_proj(x)]
        none = attention.o_proj(torch.zeros(1, 0, 32))  # a pass that wants no rows
    assert none.shape == (1, 0, 32)
    torch.testing.assert_close(alone, [attention.v_proj(x), attention.k_proj(x)])
    torch.testing.assert_close(mixed, [attention.q_proj(x), attention.k_proj(y), attention.v_proj(x)])


def own() -> Any:
    return AutoModelForCausalLM.from_config(network("llama").config).eval()


def test_threads_may_share_it() -> None:
    model = own()
    prompts = [torch.randint(0, VOCAB, (1, 9), generator=torch.Generator().manual_seed(i)) for i in range(4)]
    wrong: list[int] = []
    with fast(model), torch.inference_mode():
        truth = [model(prompt).logits for prompt in prompts]

    def run(i: int) -> None:
        with torch.inference_mode():
            wrong.extend(i for _ in range(150) if not torch.allclose(model(prompts[i]).logits, truth[i], atol=1e-4))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with fast(model), ThreadPoolExecutor(4) as pool:
            list(pool.map(run, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_it_can_be_trained_saved_and_copied_meanwhile(tmp_path: Path) -> None:
    model = own()
    words = torch.randint(0, VOCAB, (1, 9))
    with fast(model):
        with torch.inference_mode():
            want = model(words).logits
        model(words).logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        model.save_pretrained(tmp_path / "saved")
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
        with torch.inference_mode():
            torch.testing.assert_close(saved(words).logits, want, **CLOSE["llama"])
            torch.testing.assert_close(twin(words).logits, want, **CLOSE["llama"])
            assert not torch.allclose(model(words).logits, want, atol=1e-2)
            twice = twin.double()(words).logits
            assert twice.dtype == torch.float64
            torch.testing.assert_close(twice.float(), want, **CLOSE["llama"])


def test_loaded_models_are_fast_and_decode_the_same(tmp_path: Path) -> None:
    network("llama").save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    model = decodery.load(tmp_path / "m")
    assert model.linear
    for draft in ("none", "recycling"):
        outputs = decodery.decode(model, PROMPTS, draft=draft, **OPTIONS)
        assert [output.tokens for output in outputs] == [plain("llama", prompt) for prompt in PROMPTS]


def test_choices_are_kept_for_the_next_start(monkeypatch: Any) -> None:
    with fast(network("llama")) as first:
        pass
    monkeypatch.setattr(module, "choose", lambda _: pytest.fail("measured twice"))
    with fast(network("llama")) as second:
        assert second == first


def test_the_choice_is_the_fastest_measured(monkeypatch: Any) -> None:
    def pretended(way: Any, x: Any, weights: Any, repeats: int) -> float:
        return 6.5 if way is WAYS["linear"] else 1.0 + x.shape[0]

    monkeypatch.setattr(module, "_time", pretended)
    choice = choose([torch.randn(6, 4)])
    assert choice.ways == {1: "W x'", 2: "W x'", 4: "W x'", 8: "linear", 16: "linear"}
    assert choice.micros[1] == 2.0
    assert choice.way(1000) is torch.nn.functional.linear


@settings(max_examples=30)
@given(rows=st.integers(1, 5), seed=st.integers(0, 99), size=st.floats(1e-6, 1e3), lift=st.floats(-3, 3))
@pytest.mark.parametrize("rounding", [eight_bits, four_bits])
def test_codes_hold_rounded_weights_exactly(rounding: Any, rows: int, seed: int, size: float, lift: float) -> None:
    """Groups of one value, of values of one sign, and rows that are no multiple of 32 included."""
    for columns in (9, 64):
        noise = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
        weight = size * (noise + lift)
        weight[0] = size * lift
        codes = rounding(weight)
        rounded = codes.values()
        if rounding is eight_bits:
            assert ((rounded - weight).abs() <= codes.scale[:, 0] / 2 * 1.001).all()
        again = rounding(rounded)
        assert again.gives(rounded)
        assert (again.values() - rounded).abs().max() <= 2e-6 * weight.abs().max()
        assert not rounding(weight * 1.001 + noise * size).gives(weight)


def test_four_bits_search_their_range() -> None:
    """One number far outside costs the others their grid, unless it is cut off; no range does worse than the whole."""
    weight = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    weight[:, 0] = 6.0
    groups = weight.reshape(200, 2, 32)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = (high - low) / 15
    whole = ((((groups - low) / scale).round() * scale + low) - groups).square().sum(2)
    searched = (four_bits(weight).values() - weight).reshape(groups.shape).square().sum(2)
    assert (searched <= whole * 1.0001).all()
    assert searched.mean() < 0.95 * whole.mean()


def test_rounding_spares_what_is_small_or_no_matrix() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.Linear(8, 8), nn.LayerNorm(64))
    before = {key: value.clone() for key, value in layers.state_dict().items()}
    round_weights(layers, eight_bits, eight_bits)
    changed = {key for key, value in layers.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"0.weight"}
