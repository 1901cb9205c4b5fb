"""A model is as able as its rows are right: with freed slots, several texts, beyond windows and over borders."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers as tf

import decodery
from decodery.core.errors import BadModel
from decodery.core.values import Cap
from decodery.model.probe import examine
from decodery.model.slots import SlotArena

from .probe_common import SIZES, VOCAB, enlarged, farthest, prompt, random_network, words

SMALL: dict[str, Any] = {k: v for k, v in SIZES.items() if "token_id" not in k}


def longrope(original: int) -> dict[str, Any]:
    """Rotary parameters whose frequencies change beyond ``original`` tokens."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "factor": 4.0}
    rope |= {"long_factor": [1.5, 3.0, 6.0, 12.0], "original_max_position_embeddings": original}
    return {"rope_parameters": rope, "original_max_position_embeddings": original}


def llama4(**options: Any) -> Any:
    return tf.Llama4TextConfig(**SIZES | {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48} | options)


# name -> configuration, length of the prompt, whether it takes a tree
NETWORKS: dict[str, tuple[Any, int, bool]] = {
    "gpt-neo": (
        lambda: tf.GPTNeoConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            max_position_embeddings=512,
            attention_types=[[["global", "local"], 2]],
        ),
        20,
        False,
    ),
    "llama 4, short chunks": (lambda: llama4(attention_chunk_size=7), 20, True),
    "llama 4, long chunks": (lambda: llama4(attention_chunk_size=64), 60, True),
    "llama 4, a scale by place": (lambda: llama4(attention_chunk_size=64, num_hidden_layers=4), 20, False),
    "mistral, window 70": (lambda: tf.MistralConfig(**SIZES, sliding_window=70), 72, True),
    "gemma 3, window 70": (lambda: tf.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=70), 72, True),
    "a short window without effect": (lambda: tf.LlamaConfig(**SIZES, sliding_window=5), 20, True),
    "a long window without effect": (lambda: tf.LlamaConfig(**SIZES, sliding_window=70), 72, True),
    "mpt": (lambda: tf.MptConfig(vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=4, max_seq_len=64), 20, False),
    "phi 3, border in the answer": (lambda: tf.Phi3Config(**SIZES, **longrope(35)), 28, True),
    "phi 3, border in the prompt": (lambda: tf.Phi3Config(**SIZES, **longrope(20)), 28, True),
    "phi 3, border in the trial": (lambda: tf.Phi3Config(**SIZES, **longrope(6)), 4, True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_are_right(name: str) -> None:
    config, length, tree = NETWORKS[name]
    model = decodery.load((random_network(config()), words()))
    assert (Cap.TREE in model.can) == tree
    one, other = prompt(length), prompt(max(3, length - 9), seed=5)
    assert farthest(model, [one], "none", new=12) < 1e-3
    assert farthest(model, [one], "recycling", new=12) < 1e-3
    assert farthest(model, [one, other], "recycling", new=6) < 1e-3


def test_a_long_prompt_and_lanes_of_their_own_beyond_a_border() -> None:
    model = decodery.load((random_network(tf.Phi3Config(**SIZES, **longrope(300))), words()))
    assert farthest(model, [prompt(400), prompt(290, seed=5)], "recycling", new=14) < 1e-3


def test_a_text_over_the_border_as_generate_continues_it() -> None:
    network = random_network(tf.Phi3Config(**SIZES, **longrope(30)))
    network.generation_config.eos_token_id = None
    ids = torch.tensor([prompt(24)])
    due = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)[0, 24:]
    model = decodery.load((network, words()))
    for draft in ("none", "recycling"):
        got = decodery.decode(model, prompt(24), draft=draft, max_new_tokens=20, ignore_eos=True).tokens
        assert got == due.tolist()


def compressing() -> Any:
    if not hasattr(tf, "DeepseekV4Config"):
        pytest.skip("this transformers has no DeepSeek-V4")
    attention = {"head_dim": 16, "q_lora_rank": 16, "o_groups": 2, "o_lora_rank": 8, "num_key_value_heads": 1}
    index = {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 8, "sliding_window": 16, "hc_mult": 2}
    experts = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 4}
    sizes = {k: v for k, v in SIZES.items() if k != "intermediate_size"}
    return tf.DeepseekV4Config(**sizes | attention | index | experts)


def indexing() -> Any:
    if not hasattr(tf, "HYV4Config"):
        pytest.skip("this transformers has no HY-V4")
    latent = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    index = {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 2}
    experts = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 4}
    return tf.HYV4Config(**SIZES | latent | index | experts)


@pytest.mark.parametrize("config", [compressing, indexing])
def test_where_cached_rows_differ_a_tree_is_refused_and_drafts_change_nothing(config: Any) -> None:
    network = random_network(config())
    network.generation_config.eos_token_id = None
    model = decodery.load((network, words()))
    assert Cap.TREE not in model.can
    assert "differ" in model.missing[Cap.TREE]
    text = prompt(20)
    ids = torch.tensor([text])
    due = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)[0, 20:]
    for draft in ("none", "recycling"):
        options = {"draft": draft, "plan": "fixed:4", "max_new_tokens": 24, "ignore_eos": True}
        assert decodery.decode(model, text, **options).tokens == due.tolist()


def test_a_state_that_no_cache_holds_is_refused() -> None:
    """RecurrentGemma keeps its states in its modules: what one draft leaves there, the next text reads."""
    sizes = {k: v for k, v in SIZES.items() if k != "max_position_embeddings"}
    with pytest.raises(BadModel, match="drafts change its rows"):
        examine(random_network(tf.RecurrentGemmaConfig(**sizes, attention_window_size=16)))


@pytest.mark.parametrize("size", [*range(2, 30), 45, 99, 200, 333])
def test_any_vocabulary(size: int) -> None:
    network = random_network(tf.LlamaConfig(**SIZES | {"vocab_size": size}))
    assert Cap.TREE in decodery.load((network, words(size))).can


@pytest.mark.parametrize(("size", "effect"), [(5, True), (5, False), (70, True), (70, False)])
def test_a_graph_has_the_windows_of_its_network(size: int, effect: bool, tmp_path: Any) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'openvino>=2026.4'")
    from decodery.model.facts import facts_of
    from decodery.model.openvino.backend import OpenVinoBackend
    from decodery.model.openvino.convert import convert
    from decodery.model.openvino.folder import GRAPH

    kind = tf.MistralConfig if effect else tf.LlamaConfig
    network = random_network(kind(**SIZES, sliding_window=size))
    if effect:
        convert(network, tmp_path)
        assert OpenVinoBackend(tmp_path / GRAPH, facts_of(network)).windows
    else:
        with pytest.raises(BadModel, match="graph's"):
            convert(network, tmp_path)


BERT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CONTEXTS: dict[str, tuple[Any, int]] = {
    "gpt2": (lambda: tf.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=40), 40),
    "mpt": (lambda: tf.MptConfig(vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=4, max_seq_len=40), 40),
    "roberta": (lambda: tf.RobertaConfig(**BERT, max_position_embeddings=42, is_decoder=True, pad_token_id=1), 40),
    "roberta, padding 4": (
        lambda: tf.RobertaConfig(**BERT, max_position_embeddings=45, is_decoder=True, pad_token_id=4),
        40,
    ),
    "bert": (lambda: tf.BertConfig(**BERT, max_position_embeddings=40, is_decoder=True), 40),
    "opt, two rows more": (
        lambda: tf.OPTConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            max_position_embeddings=40,
        ),
        40,
    ),
    "ctrl": (lambda: tf.CTRLConfig(vocab_size=VOCAB, n_embd=32, dff=48, n_layer=2, n_head=4, n_positions=40), 40),
    "tiny": (lambda: tf.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=12), 12),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_context_is_what_the_network_takes(name: str) -> None:
    config, context = CONTEXTS[name]
    model = decodery.load((random_network(config()), words()))
    assert model.context == context
    answer = decodery.decode(model, prompt(context - 5), max_new_tokens=100, ignore_eos=True)
    assert (len(answer.tokens), answer.finish_reason) == (5, "length")


OTHERS: dict[str, tuple[Any, str]] = {
    "T5": (
        lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        ),
        "encoder-decoder",
    ),
    "masked": (lambda: tf.BertForMaskedLM(tf.BertConfig(**BERT)), "no causal language model"),
    "classifier": (lambda: tf.GPT2ForSequenceClassification(tf.GPT2Config(vocab_size=VOCAB)), "no head"),
    "body": (lambda: tf.LlamaModel(tf.LlamaConfig(**SIZES)), "no head"),
    "no network": (lambda: "gpt2", "a pair [(]network, tokenizer[)]"),
    "a plain module": (lambda: torch.nn.Linear(2, 2), "a pair [(]network, tokenizer[)]"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_networks_are_refused_by_load(name: str) -> None:
    make, reason = OTHERS[name]
    with pytest.raises(BadModel, match=reason):
        decodery.load((make(), words()))


def test_a_network_that_looks_ahead_is_refused() -> None:
    network = enlarged(tf.BertLMHeadModel(tf.BertConfig(**BERT)).eval())
    with pytest.raises(BadModel, match="depend on later tokens"):
        examine(network)


def test_errors_of_our_own_rise(monkeypatch: Any) -> None:
    """They are not the model's inability."""

    def broken(*_: Any) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(SlotArena, "_batch", broken)
    network = random_network(tf.LlamaConfig(**SIZES))
    with pytest.raises(TypeError, match="ours"):
        examine(network)
    assert "forward" not in vars(network), "the network is as it was"


def test_a_network_that_cannot_be_copied_runs_from_its_own_cache() -> None:
    network = random_network(tf.MistralConfig(**SIZES, sliding_window=70))
    network.model.norm.lock = threading.Lock()
    model = decodery.load((network, words()))
    assert "no copy can be made" in model.missing[Cap.TREE]
    assert farthest(model, [prompt(72)], "recycling", new=8) < 1e-3


def test_the_network_stays_as_it_is() -> None:
    network = random_network(tf.MistralConfig(**SIZES, sliding_window=70))
    before = network.config.to_dict()
    assert Cap.TREE in examine(network).can
    assert network.config.to_dict() == before
    assert "forward" not in vars(network)
