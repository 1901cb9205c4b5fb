"""GGUF files: each is described once by a plain Hugging Face directory in the cache folder.

That directory has no weights: the OpenVINO graph is made from the file's own blocks. Where somebody needs float32 weights
(the torch backend, ``decodery.resolve``), a second directory gets them, four to eight times the size of the file.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodery.core.errors import BadModel
from decodery.core.files import make_once
from decodery.model.checkpoint import config_of, network_of, tokenizer_of
from decodery.model.diskcache import cache_dir, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOG = logging.getLogger(__name__)

FORMAT = "3"
"""Part of the folders' names; raise it when what is written into them changes."""

_READING = threading.RLock()


def described(gguf: Path) -> Path:
    """The directory of a GGUF file's configurations and tokenizer, made now unless it was before. Raises ``BadModel``.

    What was made is used again only for the same content, read by the same version of transformers.
    """
    return _made(gguf, "", _describe)


def converted(gguf: Path) -> Path:
    """The same with float32 weights: an ordinary model. Raises ``BadModel``."""
    return _made(gguf, "-float32", _convert)


def network_in(gguf: Path) -> PreTrainedModel:
    """The network of a GGUF file in float32, without the entry of quantisation. Raises ``BadModel``."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with _named(gguf):
        network = network_of(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    with no_init_weights():
        plain: PreTrainedModel = AutoModelForCausalLM.from_config(_plain(network.config))  # type: ignore[no-untyped-call]
    plain.load_state_dict(network.state_dict(), assign=True)  # no copy: the weights may take half of the memory
    plain.tie_weights()
    plain.generation_config = network.generation_config
    plain.train(False)
    return plain


@contextmanager
def read_once() -> Iterator[None]:
    """Let whoever reads a GGUF file meanwhile share what was read before.

    transformers parses the file for the tokenizer, for the configuration and for the weights, 2.5 s each (SmolLM2), and makes
    the same table of tensor names for each module, 3 s in all.
    """
    import gguf

    with _READING:
        parsers = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
        for name, parser in parsers.items():
            setattr(gguf, name, cache(parser))
        try:
            yield
        finally:
            for name, parser in parsers.items():
                setattr(gguf, name, parser)


def _made(gguf: Path, kind: str, build: Callable[[Path, Path], None]) -> Path:
    if not gguf.is_file():
        raise BadModel(f"no such file: {gguf}")
    try:
        with gguf.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise BadModel(f"{gguf} is not a GGUF file: it does not begin with 'GGUF'")
        name = f"{gguf.stem}-{digest(gguf)[:16]}-v{FORMAT}-{version('transformers')}{kind}"
    except OSError as error:
        raise BadModel(f"cannot read {gguf}: {error.strerror or error}") from error
    try:
        return make_once(cache_dir() / name, lambda folder: build(gguf, folder))
    except OSError as error:
        raise BadModel(f"the converted model cannot be kept: {error}. Set DECODERY_CACHE to another folder") from error


def _describe(gguf: Path, target: Path) -> None:
    """transformers reads configuration and tokenizer of the GGUF; the network is not filled with weights for it."""
    import torch
    from transformers import AutoModelForCausalLM

    folder, name = str(gguf.parent), gguf.name
    LOG.info("reading the tokenizer of %s once; later starts skip this ...", name)
    with read_once(), _named(gguf):
        tokenizer = tokenizer_of(folder, gguf_file=name)
        config = config_of(folder, gguf_file=name)
        config.dtype = torch.float32
        with torch.device("meta"):
            hull = AutoModelForCausalLM.from_config(_plain(config))  # type: ignore[no-untyped-call]
    hull.config.save_pretrained(target)
    hull.generation_config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _convert(gguf: Path, target: Path) -> None:
    """transformers reads the GGUF; what it read is saved as safetensors beside a copy of its description."""
    from safetensors import SafetensorError

    shutil.copytree(described(gguf), target, dirs_exist_ok=True)
    LOG.info("converting %s to float32 once; later starts skip this ...", gguf.name)
    try:
        with read_once():
            network_in(gguf).save_pretrained(target)
    except SafetensorError as error:
        raise OSError(f"cannot write {target}: {error}; is the disk full?") from error
    LOG.info("converted %s", gguf.name)


@contextmanager
def _named(gguf: Path) -> Iterator[None]:
    try:
        yield
    except BadModel as error:
        reason = (str(error).partition(": ")[2] or str(error)) + _damage(gguf)
        raise BadModel(f"{gguf} cannot be read as a model: {reason}") from error


def _damage(gguf: Path) -> str:
    """What the user can do where the file's own entries and tensors cannot be listed; else nothing."""
    from gguf import GGUFReader

    try:
        GGUFReader(gguf)
    except Exception:  # whatever numpy and struct make of wrong lengths
        return "; the file is cut off or damaged, or newer than the package gguf that is installed: get it again"
    return ""


def _plain(config: Any) -> Any:
    entries = config.to_dict()
    entries.pop("quantization_config", None)
    entries.pop("_name_or_path", None)
    return type(config).from_dict(entries)
