"""What a transformers configuration says about a network. Whether it holds, the probe finds out by trying."""

from __future__ import annotations

from typing import Any

from torch import nn

from decodery.core.errors import BadModel
from decodery.model.slots import Reach

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
