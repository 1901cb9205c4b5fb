"""What a call of ``generate()`` asks for that its new loop cannot do, refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig
from transformers.generation.logits_process import LogitNormalization

from decodery.core.errors import DecoderyError
from decodery.core.values import Tensor

UNSUPPORTED = {
    "constraints force_words_ids": "use custom_generate(constrain=...)",
    "num_beam_groups diversity_penalty low_memory": "num_beams alone works",
    "penalty_alpha dola_layers": "use do_sample, num_beams or guidance_scale",
    "use_mtp speculation_type": 'use custom_generate(draft=...), e.g. "recycling"',
    "assistant_ensemble_weight": "leave it out: drafts are verified without loss",
    "use_cache cache_implementation cache_config max_cache_len prefill_chunk_size compile_config": (
        "keep the default: the engine has a cache of its own"
    ),
    "continuous_batching_config": "use generate_batch()",
    "output_attentions output_hidden_states": "output_scores and output_logits work",
}
"""Fields of the generation config that must be unset or at their defaults, and what works instead."""

ASSISTING = "num_assistant_tokens_schedule assistant_confidence_threshold assistant_lookbehind target_lookbehind"
"""Fields that would shape the drafts of an assistant; without one they mean nothing."""

PREPARED = {"attention_mask", "position_ids", "logits_to_keep", "use_cache", "cache", "past_key_values", "cache_params"}
"""What ``generate()`` itself prepares for the model's forward."""


def unsupported(name: str, instead: str) -> DecoderyError:
    """The error for a field of ``generate()``."""
    return DecoderyError(f"custom_generate: {name} is not supported here; {instead}")


def refuse(model: Any, config: Any, inputs: Mapping[str, Any], assistant: object) -> None:
    """Raise for the first thing asked for that the loop cannot do."""
    if model.config.is_encoder_decoder:
        raise unsupported(f"an encoder-decoder ({type(model).__name__})", "it takes decoder-only models")
    usual = GenerationConfig._get_default_generation_params()
    fields = dict(UNSUPPORTED)
    if assistant is not None or config.assistant_early_exit:
        fields[ASSISTING] = "keep the default; num_assistant_tokens is the length of each draft"
    for names, instead in fields.items():
        for name in names.split():
            value = getattr(config, name, None)
            if value not in (None, "dynamic") and value != usual.get(name, False):
                raise unsupported(f"{name}={value!r}", instead)
    for name, value in inputs.items():
        if getattr(value, "_is_user_defined", False):
            raise unsupported(name, "give the whole text as input_ids; decodery.decode takes a session")
        if name not in PREPARED and value is not None and value is not False:
            raise unsupported(name, "leave it out: the engine computes from input_ids and their left padding alone")


def refuse_with_beams(config: Any, processors: Sequence[object], **asked: object) -> None:
    """Raise for what a beam search cannot do."""
    names = "do_sample output_scores output_logits prompt_lookup_num_tokens assistant_early_exit"
    for name, value in ({name: getattr(config, name) for name in names.split()} | asked).items():
        if value:
            hint = "; sequences_scores come without it" if name == "output_scores" else ""
            raise unsupported(f"{name} with num_beams={config.num_beams}", "leave out one of the two" + hint)
    if processors and not isinstance(processors[-1], LogitNormalization):
        kinds = ", ".join(type(processor).__name__ for processor in processors)
        raise unsupported(
            f"num_beams={config.num_beams} with unnormalised scores ({kinds})", "add renormalize_logits=True"
        )


def prompts_of(input_ids: Tensor, inputs: Mapping[str, Any]) -> list[list[int]]:
    """The rows without their left padding."""
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    mask = input_ids.new_ones(1, input_ids.shape[1]) if mask is None else (mask != 0).long()
    if not mask[:, -1].all() or (mask.diff(dim=-1) < 0).any():
        raise unsupported("attention_mask with padding other than on the left", "pad on the left")
    if positions is not None and not ((positions == mask.cumsum(-1) - 1) | (mask == 0)).all():
        raise unsupported("position_ids of your own", "leave them out: they count the tokens that are not padding")
    kept = mask.bool().expand_as(input_ids)
    return [row[keep].tolist() for row, keep in zip(input_ids, kept, strict=True)]
