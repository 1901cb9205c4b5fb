"""What a network and its configuration say of themselves. Whether it holds, the probe finds out by trying.

Nothing here imports torch or transformers, for facts that were kept in a file are read before both are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from decodery.core.errors import BadModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

UNLIMITED = 1 << 20

LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "context_length",
    "model_max_length",
    "max_target_positions",
    "n_ctx",
)
"""The names under which configurations say how long a text may be."""

REACHES = (
    "sliding_window",
    "attention_chunk_size",
    "sliding_window_size",
    "window_size",
    "attention_window",
    "attention_window_size",
    "local_attention",
    "keep_window_size",
    "index_topk",
    "floor_scale",
)
"""The names of lengths beyond which a network computes otherwise; the masks of the first two are made here."""


class Reach(NamedTuple):
    """How far back a kind of attention sees: ``size`` tokens, or to where its stretch of ``size`` tokens begins.

    Without a size it sees everything.
    """

    size: int | None = None
    chunked: bool = False


class Facts(NamedTuple):
    """What is asked of a network without running it; plain enough for a file of JSON.

    ``kind``: its class. ``vocab``: how many tokens its rows speak of, which may be more than the tokenizer has.
    ``embedded``: how many tokens have an embedding; very many where the network does not tell. ``eos``: the tokens that end
    an answer, as generation config and config name them. ``context``: the longest text that the configuration allows, of one
    set of rotary frequencies. ``sampling``: the guides that stand for the generation config's own sampling.
    """

    kind: str
    vocab: int
    embedded: int
    eos: list[int]
    depth: int
    parameters: int
    context: int
    windows: dict[str, Reach]
    sampling: list[str]


def facts_of(network: Any) -> Facts:
    """The facts of a network that is there. Raises ``BadModel`` for one that is no causal language model."""
    refuse_other_kinds(network)
    config = network.config.get_text_config()
    vocab = int(config.vocab_size)
    return Facts(
        kind=type(network).__name__,
        vocab=vocab,
        embedded=_embedded(network),
        eos=first_eos((network.generation_config, network.config, config), vocab),
        depth=int(config.num_hidden_layers),
        parameters=sum(p.numel() for p in network.parameters()),
        context=min(context_of(config), rope_border(config) or UNLIMITED),
        windows=windows_of(config),
        sampling=sampling_of(network.generation_config),
    )


@dataclass(eq=False)
class Unloaded:
    """A network that another backend runs: its modules, without weights, are built when asked for."""

    facts: Facts
    build: Callable[[], PreTrainedModel]
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def network(self) -> PreTrainedModel:
        """The modules, on the device "meta"."""
        return self.build()


def first_eos(places: Iterable[Any], vocab: int) -> list[int]:
    """The tokens that end an answer as the first of these configurations names them that names one of the vocabulary."""
    for place in places:
        ids = getattr(place, "eos_token_id", None)
        named = ids if isinstance(ids, (list, tuple)) else [ids]
        if found := sorted({int(token) for token in named if token is not None and 0 <= token < vocab}):
            return found
    return []


def sampling_of(config: Any) -> list[str]:
    """The guides that shape and sample as ``generate`` of transformers does under this generation config, in its order."""
    # A guide, its field, what generate() takes where that is not set, and the value that means none.
    asked: list[tuple[str, str, float, float | None]] = [
        ("repetition", "repetition_penalty", 1.0, 1.0),
        ("no-repeat-ngram", "no_repeat_ngram_size", 0, 0),
    ]
    if getattr(config, "do_sample", None):
        asked += [
            ("temperature", "temperature", 1.0, None),  # named even where it changes nothing: a guide that samples
            ("top-k", "top_k", 50, 0),
            ("top-p", "top_p", 1.0, 1.0),
            ("min-p", "min_p", 0.0, 0.0),
            ("typical-p", "typical_p", 1.0, 1.0),
        ]
    told = [
        (guide, usual if (set_ := getattr(config, field, None)) is None else set_, off)
        for guide, field, usual, off in asked
    ]
    return [f"{guide}:{value}" for guide, value, off in told if value != off]


def _embedded(network: Any) -> int:
    try:
        return len(network.get_input_embeddings().weight)
    except (NotImplementedError, AttributeError, TypeError):
        return 1 << 60


def windows_of(config: Any) -> dict[str, Reach]:
    """Kind of attention -> how far back it sees."""
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    reaches = {
        "sliding_attention": Reach(window),
        "chunked_attention": Reach(getattr(config, "attention_chunk_size", None), chunked=True),
    }
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        kinds = ["full_attention" if window is None else "sliding_attention"]
    return {kind: reaches.get(kind, Reach()) for kind in sorted(set(kinds))}


def context_of(config: Any) -> int:
    """How many tokens a text may have; very many where nothing is said."""
    lengths = (getattr(config, name, None) for name in LENGTHS)
    return next((int(length) for length in lengths if isinstance(length, int) and length > 0), UNLIMITED)


def reaches_of(config: Any) -> dict[str, int]:
    """Field -> the length beyond which the network may compute otherwise."""
    found: dict[str, Any] = {name: getattr(config, name, None) for name in REACHES}
    found |= getattr(config, "compress_rates", None) or {}
    if getattr(config, "use_sliding_window", True) is False:
        found["sliding_window"] = None
    return {name: size for name, size in found.items() if isinstance(size, int) and size > 0}


def rope_tables(config: Any) -> list[dict[str, Any]]:
    """The rotary parameters whose frequencies change beyond a length (longrope): one table, or one a kind of layer."""
    tables = getattr(config, "rope_parameters", None) or {}
    nested = [table for table in tables.values() if isinstance(table, dict)]
    return [table for table in nested or [tables] if table.get("rope_type") == "longrope"]


def rope_border(config: Any) -> int | None:
    """The longest text that the short frequencies serve; a longer one is computed with the long ones from its start."""
    borders = [table.get("original_max_position_embeddings") for table in rope_tables(config)]
    return min((int(border) for border in borders if border), default=None)


def refuse_other_kinds(network: Any) -> None:
    """Raise ``BadModel`` for a network that is no causal language model."""
    from torch import nn

    name = type(network).__name__
    advice = "Decodery needs a causal language model, as AutoModelForCausalLM loads it"
    if not isinstance(network, nn.Module) or getattr(network, "config", None) is None:
        raise BadModel(f"{name} is no transformers model. {advice}")
    if getattr(network.config, "is_encoder_decoder", False):
        raise BadModel(f"{name} is an encoder-decoder: its answer follows another text. {advice}")
    if getattr(network, "can_generate", lambda: True)():
        return
    # A body and a masked language model differ in that only the latter has a head.
    if getattr(network, "get_output_embeddings", lambda: network)() is None:
        raise BadModel(f"{name} has no head that gives a row of logits for every token. {advice}")
    raise BadModel(f"{name} is no causal language model: its rows are not those of the next token. {advice}")
