"""Tiny random networks of many kinds, and the definition of their rows: a pass without a cache that ends with the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models

import decodery

VOCAB = 128
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
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


def words(n: int = VOCAB) -> Any:
    """A tokenizer of the words w0, w1, ..."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


def random_network(config: Any) -> Any:
    """A causal network with weights enlarged so that rows differ clearly."""
    torch.manual_seed(0)
    return enlarged(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())


def enlarged(network: Any) -> Any:
    """The network with its matrices enlarged."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return network


def prompt(n: int, seed: int = 3) -> list[int]:
    """Random tokens."""
    return torch.randint(3, VOCAB, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def farthest(model: decodery.Model, prompts: Sequence[list[int]], draft: str, new: int) -> float:
    """How far any row is from its definition, in spreads of the logits."""
    texts, worst = [list(p) for p in prompts], 0.0
    for piece in decodery.stream(
        model, list(prompts), draft=draft, plan="fixed:6", max_new_tokens=new, ignore_eos=True
    ):
        if piece.step is None:
            continue
        text, rows = texts[piece.answer], piece.step.rows
        for length in {len(path) for path in rows.paths}:
            here = [i for i, path in enumerate(rows.paths) if len(path) == length]
            ids = torch.tensor([[*text, *rows.paths[i]] for i in here])
            true = model.network(input_ids=ids, use_cache=False).logits[:, -1]
            worst = max(worst, float(((rows.logits[here] - true).abs().amax(1) / true.std(1)).max()))
        text += piece.step.tokens
    return worst
