"""Configuration, tokenizer and network of a folder or a hub id; whatever is wrong with the files is said in a sentence.

Each function imports what it needs of transformers: a tokenizer alone is to be had much sooner than a network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodery.core.errors import BadModel, first_line
from decodery.model.diskcache import digest_of_folder, found_before

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POINTER = b"version https://git-lfs"
FILLED = (".safetensors", ".bin", ".pt", ".json", ".model", ".gguf")
"""Kinds of files that are never empty in a sound model."""
NAMED = 4
"""At most so many weights are named in a message."""


def config_of(path: str, **where: Any) -> Any:
    """The model's configuration. Raises ``BadModel``."""
    from transformers import AutoConfig, GenerationConfig

    with _told(path, "the model at {path} cannot be loaded"):
        if (Path(path) / "generation_config.json").is_file():  # transformers passes over one that it cannot read
            GenerationConfig.from_pretrained(path)
        return AutoConfig.from_pretrained(path, **where)


def tokenizer_of(path: str, **where: Any) -> PreTrainedTokenizerBase:
    """The tokenizer. Raises ``BadModel``."""
    with _told(path, "no tokenizer can be read from {path}"):
        if not Path(path).is_dir() or any(where.values()):
            return _found_out(path, **where)
        # Which class it is says AutoTokenizer, but that takes as long to import as a small model to load.
        facts = (version("transformers"), digest_of_folder(Path(path), weights=False))
        kind = found_before("tokenizers", facts, lambda: _class_of(_found_out(path)))
        import transformers

        tokenizer: PreTrainedTokenizerBase = (
            getattr(transformers, kind).from_pretrained(path) if kind else _found_out(path)
        )
        return tokenizer


def _found_out(path: str, **where: Any) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **where)
    return tokenizer


def _class_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The name under which transformers has the class of this tokenizer; empty for one of the model's own code."""
    import transformers

    name = type(tokenizer).__name__
    return name if getattr(transformers, name, None) is type(tokenizer) else ""


def network_of(path: str, **options: Any) -> PreTrainedModel:
    """The network with its weights, ready to be run. Raises ``BadModel``, also where some weights are not in the files.

    transformers would fill such weights up with random numbers.
    """
    from transformers import AutoModelForCausalLM

    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with _told(path, "the model at {path} cannot be loaded"), _no_bars():
        loaded: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    network, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise BadModel(f"the files at {path} lack {_names(missing)}; get all of the model's weights")
    if other := sorted(found["mismatched_keys"]):
        names = _names([f"{name} ({list(there)}, not {list(due)})" for name, there, due in other])
        raise BadModel(f"weights at {path} have another shape than its config.json says: {names}")
    ready: PreTrainedModel = network.eval()
    return ready


def memory_bytes() -> int:
    """The machine's memory; where the system does not tell, more than any model needs."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 60


@contextmanager
def _told(path: str, what: str) -> Iterator[None]:
    """Any error of transformers, tokenizers, safetensors or pickle as a ``BadModel``: each has kinds of its own."""
    try:
        yield
    except Exception as error:
        from safetensors import SafetensorError

        damaged = isinstance(error, (SafetensorError, EOFError))
        reason = _unsound(Path(path)) or first_line(error) + "; the file may be cut off: get it again" * damaged
        raise BadModel(f"{what.format(path=path)}: {reason}") from error


def _unsound(folder: Path) -> str:
    """Which file did not arrive, and what to do; empty where none is found."""
    if folder.is_dir() and not (folder / "config.json").exists():
        return "there is no config.json in it, so it holds no model of transformers; name another directory"
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if file.suffix not in FILLED or not file.is_file():
            continue
        with file.open("rb") as opened:
            head = opened.read(len(POINTER))
        if head == POINTER:
            return f"{file.name} is a git-lfs pointer instead of the file itself: run git lfs pull there"
        if not head:
            return f"{file.name} is empty: get it again"
        if file.suffix == ".json" and not _is_json(file):
            return f"{file.name} holds no JSON object: mend it, or get it again"
    return ""


def _is_json(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_bytes()), dict)
    except ValueError:
        return False


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing its own progress bars meanwhile."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
