"""GGUF files: each is converted once to a plain Hugging Face directory in the cache folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from decodery.core.errors import BadModel
from decodery.core.files import make_once
from decodery.model.checkpoint import network_of, tokenizer_of
from decodery.model.diskcache import cache_dir, digest

LOG = logging.getLogger(__name__)

FORMAT = "2"
"""Part of the folder's name; raise it when the conversion changes."""


def converted(gguf: Path) -> Path:
    """The Hugging Face directory of a GGUF file, converted now unless it was before. Raises ``BadModel``.

    What was converted is used again only for the same content, read by the same version of transformers.
    """
    if not gguf.is_file():
        raise BadModel(f"no such file: {gguf}")
    try:
        with gguf.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise BadModel(f"{gguf} is not a GGUF file: it does not begin with 'GGUF'")
        name = f"{gguf.stem}-{digest(gguf)[:16]}-v{FORMAT}-{transformers.__version__}"
    except OSError as error:
        raise BadModel(f"cannot read {gguf}: {error.strerror or error}") from error
    try:
        return make_once(cache_dir() / name, lambda folder: _convert(gguf, folder))
    except OSError as error:
        raise BadModel(f"the converted model cannot be kept: {error}. Set DECODERY_CACHE to another folder") from error


def _convert(gguf: Path, target: Path) -> None:
    """transformers reads the GGUF; what it read is saved as safetensors, without the quantisation entry."""
    folder, name = str(gguf.parent), gguf.name
    LOG.info("converting %s once; later starts skip this: tokenizer ...", name)
    try:
        tokenizer = tokenizer_of(folder, gguf_file=name)
        LOG.info("converting %s: weights ...", name)
        network = network_of(folder, gguf_file=name, dtype=torch.float32)
    except BadModel as error:
        raise BadModel(f"{gguf} cannot be read as a model: {str(error).partition(': ')[2] or error}") from error
    _save(network, target)
    tokenizer.save_pretrained(target)
    LOG.info("converted %s", name)


def _save(network: PreTrainedModel, target: Path) -> None:
    """Save as an ordinary float32 model."""
    plain = AutoModelForCausalLM.from_config(_plain(network.config))  # type: ignore[no-untyped-call]
    plain.load_state_dict(network.state_dict())
    plain.generation_config = network.generation_config
    plain.save_pretrained(target)


def _plain(config: Any) -> Any:
    entries = config.to_dict()
    entries.pop("quantization_config", None)
    entries.pop("_name_or_path", None)
    return type(config).from_dict(entries)
