"""Tiny random models of several architectures; rows are compared with passes that use no cache."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen3Config,
)

VOCAB = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS = ["full_attention", "sliding_attention", "full_attention"]
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES),
    "gemma": lambda: GemmaConfig(**SIZES),
    "gemma3 (sliding and full)": lambda: Gemma3TextConfig(**SIZES, sliding_window=5, layer_types=KINDS),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=96, bos_token_id=1, eos_token_id=2
    ),
    "gpt-neox": lambda: GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "head_dim"}),
    "mistral (sliding)": lambda: MistralConfig(**SIZES, sliding_window=5),
    "mamba": lambda: MambaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        state_size=4,
        num_hidden_layers=3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    ),
}
TREES = [name for name in CONFIGS if name != "mamba"]


@cache
def network(name: str) -> PreTrainedModel:
    """A random model, the same every time; weights larger than usual so that rows differ clearly."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model


@torch.inference_mode()
def truth(name: str, words: list[int]) -> torch.Tensor:
    """The row after these words, without a cache."""
    row: torch.Tensor = network(name)(input_ids=torch.tensor([words]), use_cache=False).logits[0, -1]
    return row
