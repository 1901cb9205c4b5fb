"""Tokenizers and tiny random models made on the spot, for the cases of loading, prompts and ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def byte_level() -> Any:
    """One token a byte behind the special one, <end>, which ends a text."""
    vocab = {t: i for i, t in enumerate(("<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    words = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")


def sentencepiece(words: list[str], add_eos: bool) -> Any:
    """As Llama 2's: a space is put in front of every text, <s> before it and, where asked, </s> behind it."""
    vocab = {t: i for i, t in enumerate(("<unk>", "<s>", "</s>"))}
    for t in sorted({c for word in words for c in word} | {"\u2581"}):
        vocab.setdefault(t, len(vocab))
    merges = []
    for word in words:
        left = word[0]
        for c in word[1:]:
            if left + c not in vocab:
                vocab[left + c] = len(vocab)
                merges.append((left, c))
            left += c
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A" + " </s>" * add_eos, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def random(config: Any, seed: int = 0) -> Any:
    """A tiny random model, its weights enlarged so that rows differ clearly."""
    torch.manual_seed(seed)
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return network


def llama(vocab: int, seed: int = 0, **sizes: Any) -> Any:
    return random(transformers.LlamaConfig(**{**SIZES, **sizes}, vocab_size=vocab), seed)


def saved(folder: Path, seed: int = 0, **options: Any) -> Path:
    """A model's folder of 257 tokens; ``options`` of ``save_pretrained``."""
    tokenizer = byte_level()
    llama(len(tokenizer), seed).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def blocks(weight: Any, kind: str) -> Any:
    """The matrix in a kind of GGUF; of kinds that the library cannot make, random blocks with small scales."""
    quant = gguf.GGMLQuantizationType[kind]
    if not kind.endswith("_K"):
        return gguf.quantize(weight, quant)
    per, size = gguf.GGML_QUANT_SIZES[quant]
    made = np.random.default_rng(int(np.abs(weight).sum() * 1e3)).integers(
        0, 256, (weight.shape[0], weight.shape[1] // per, size), np.uint8
    )
    if kind == "Q6_K":
        made[..., -2:] = np.array([3e-4], np.float16).view(np.uint8)
    else:
        made[..., :4] = np.array([2e-4, 2e-3], np.float16).view(np.uint8)
    return made.reshape(weight.shape[0], -1)


def write_gguf(
    path: Path, middle: int, hidden: int = 512, without: str = "", kind: str = "F32", others: Mapping[str, str] = {}
) -> None:
    """A llama of four layers whose two middle ones are drawn from another seed, as after tuning them.

    ``without`` names a tensor to leave out; matrices are of a ``kind``, and those whose names have a part in ``others`` of
    that one.
    """
    tokenizer = byte_level()
    vocab = len(tokenizer) + 1
    sizes: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": hidden,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": True,
    }
    weights, other = (llama(vocab, seed, **sizes).state_dict() for seed in (0, middle))
    weights |= {name: other[name] for name in weights if ".1." in name or ".2." in name}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_block_count(4)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(8)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(hidden // 8)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([t for t, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])] + ["ab"])
    writer.add_token_types([3] + [1] * (vocab - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    tensors = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for i in range(4):
        tensors |= {f"blk.{i}.{b}.weight": f"model.layers.{i}.{a}.weight" for a, b in NAMES.items()}
    for name, ours in tensors.items():
        if name != without:
            data = weights[ours].numpy()
            its = next((other for part, other in others.items() if part in name), kind)
            if data.ndim == 1 or its == "F32":
                writer.add_tensor(name, data)
            else:
                writer.add_tensor(name, blocks(data, its), raw_dtype=gguf.GGMLQuantizationType[its])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
