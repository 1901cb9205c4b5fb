"""Small networks, trained on text by characters in some minutes; everything is seeded."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import torch
from harness import DATA
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from decodery.model.model import Model


def characters() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Tiny Shakespeare by characters: nine tenths to train on, the rest, and the alphabet."""
    with gzip.open(DATA / "corpus" / "tinyshakespeare.txt.gz", "rt") as file:
        text = file.read()
    alphabet = sorted(set(text))
    tokens = torch.tensor([alphabet.index(letter) for letter in text])
    cut = len(tokens) * 9 // 10
    return tokens[:cut], tokens[cut:], alphabet


def llama(vocab: int, depth: int, width: int) -> LlamaForCausalLM:
    """A small network, random."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def loaded(net: LlamaForCausalLM) -> Model:
    """A network as the engine takes it; its tokens are called by their numbers."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(net.config.vocab_size)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Model(net.eval(), PreTrainedTokenizerFast(tokenizer_object=words), "trained")


Loss = Callable[[torch.Tensor, int], torch.Tensor]


def train(
    net: LlamaForCausalLM, rows: Callable[[torch.Generator], torch.Tensor], loss: Loss, steps: int, rate: float = 2e-3
) -> float:
    """AdamW with a warm-up and a cosine; ``loss`` takes a batch and the step's number. Returns the mean of the last losses."""
    generator, last = torch.Generator().manual_seed(0), []
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    net.train()
    for step in range(steps):
        found = loss(rows(generator), step)
        optimiser.zero_grad()
        found.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        last = [*last[-49:], float(found.detach())]
    net.eval()
    return sum(last) / len(last)


def pieces(tokens: torch.Tensor, rows: int, length: int) -> Callable[[torch.Generator], torch.Tensor]:
    """Batches ``[rows, length]`` from anywhere in a text."""

    def batch(generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(tokens) - length, (rows,), generator=generator).tolist()
        return torch.stack([tokens[i : i + length] for i in starts])

    return batch
