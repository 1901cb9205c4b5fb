"""Tokenizers and tiny random models made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import decodery
from decodery.core.codec import Text
from decodery.guide.processor import Processor

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SPACE = "\u2581"


def _special(names: Sequence[str]) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


def words(n: int) -> Any:
    """A tokenizer of the words "w0" to "w{n-1}", without a decoder: words are joined by spaces."""
    vocab = {f"w{i}": i for i in range(n)} | {"<turn>": n, "<end>": n + 1}
    tok = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tok.add_special_tokens(_special(["<turn>", "<end>"]))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="w0", eos_token="<end>")


def byte_level(special: Sequence[str] = ("<end>", "<turn>"), extra: Sequence[str] = ()) -> Any:
    """One token a byte, special tokens first; the first of them ends a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate((*special, *letters, *extra))}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(_special(special))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tok, eos_token=special[0])


def sentencepiece(pieces: Sequence[str], special: Sequence[str] = (), strip: int = 1, metaspace: bool = False) -> Any:
    """As Llama 2's: spaces are U+2581, one is put in front and taken off again, bytes stand for the rest."""
    names = ["<unk>", "<s>", "</s>", *special]
    vocab = {t: i for i, t in enumerate(names[:3])}
    letters = sorted({c for p in pieces for c in p} | {SPACE})
    for t in [f"<0x{b:02X}>" for b in range(256)] + letters:
        vocab.setdefault(t, len(vocab))
    merges = []
    for piece in pieces:
        left = piece[0]
        for c in piece[1:]:
            if left + c not in vocab:
                vocab[left + c] = len(vocab)
                merges.append((left, c))
            left += c
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", strip, 0)] if strip else []
    tok.decoder = (
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]) if metaspace else decoders.Sequence(steps)
    )
    tok.add_special_tokens(_special(names))
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def word_pieces() -> Any:
    """As BERT's: "##" continues a word, and spaces before full stops go."""
    names = ["[UNK]", "[SEP]", "hello", "##lo", "wor", "##ld", ".", ",", "'", "a", "##!", "\N{REPLACEMENT CHARACTER}"]
    tok = Tokenizer(models.WordPiece({t: i for i, t in enumerate(names)}, unk_token="[UNK]"))
    tok.decoder = decoders.WordPiece(cleanup=True)
    tok.add_special_tokens(_special(["[UNK]", "[SEP]"]))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="[UNK]", sep_token="[SEP]")


def suffixes() -> Any:
    """As the first GPT's: "</w>" ends a word."""
    names = ["<unk>", "a", "b", "a</w>", "ab</w>", ".</w>", "</w>"]
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(names)}, merges=[], unk_token="<unk>"))
    tok.decoder = decoders.BPEDecoder()
    tok.add_special_tokens(_special(["<unk>"]))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>")


def network(vocab: int, seed: int = 0) -> Any:
    """A tiny random model, weights enlarged so that rows differ clearly."""
    torch.manual_seed(seed)
    net = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**SIZES, vocab_size=vocab), dtype=torch.float32
    ).eval()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1:
                p.mul_(3.0)
    return net


def model(tok: Any, **config: Any) -> decodery.Model:
    """A loaded model of this tokenizer; ``config`` sets entries of its generation config."""
    net = network(len(tok) + 8)
    for key, value in config.items():
        setattr(net.generation_config, key, value)
    return decodery.load((net, tok))


def codec(tok: Any) -> Text:
    return Text(tok, len(tok) + 8)


def force(answer: Sequence[int], after: int) -> Processor:
    """A guide that lets exactly these tokens come."""

    def process(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        out = torch.full_like(scores, -torch.inf)
        out[:, answer[min(ids.shape[1] - after, len(answer) - 1)]] = 0.0
        return out

    return Processor(process)
