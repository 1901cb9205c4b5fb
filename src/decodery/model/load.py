"""From a name to a model ready to decode."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decodery.core.defaults import default_of, threads_wanted
from decodery.core.errors import BadModel, first_line
from decodery.core.text import Text
from decodery.model.ability import GRAPHED
from decodery.model.change import Change
from decodery.model.checkpoint import config_of, memory_bytes, network_of, tokenizer_of
from decodery.model.diskcache import digest_of_folder, found_before
from decodery.model.model import Model
from decodery.model.resolve import DEMO, Place, place_of, reachable, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOG = logging.getLogger(__name__)

BACKENDS = ("torch", "openvino", "auto")


def load(
    spec: Any,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    backend: str | None = None,
    change: Sequence[Change] = (),
) -> Model:
    """``decodery.load`` (``run/load.py`` describes the arguments) with changes as objects."""
    if (threads := threads_wanted()) is not None:
        torch.set_num_threads(threads)
    named = isinstance(spec, (str, os.PathLike))
    if backend is None and named and device in (None, "auto"):
        backend = default_of("backend", "auto")
    if device in (None, "auto"):
        device = _accelerator() if named and backend != "openvino" else None
    if backend not in (None, *BACKENDS):
        raise BadModel(f"there is no backend {backend!r}; backends: {', '.join(BACKENDS)}")
    place = None if device is None else _device(device)
    asked = Asked(_dtype(dtype), place, revision, trust_remote_code, backend, tuple(change))
    model = _named(str(spec), asked) if named else _given(spec, asked)
    for part in change:
        model = part(model)
    return model


def load_text(spec: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Text:
    """Text in and out as a model has it, without loading the model."""
    place, where = _found(spec, revision, trust_remote_code)
    tokenizer = _tokenizer(spec, place, where)
    return Text(tokenizer, len(tokenizer))


@dataclass(frozen=True)
class Asked:
    """The options of ``load``, checked; None leaves the choice to the model."""

    dtype: torch.dtype | None
    device: torch.device | None
    revision: str | None
    trust_remote_code: bool
    backend: str | None
    change: tuple[Change, ...]


def _named(spec: str, asked: Asked) -> Model:
    """A model from files."""
    place, where = _found(spec, asked.revision, asked.trust_remote_code)
    device = asked.device or torch.device("cpu")
    tokenizer = _tokenizer(spec, place, where)
    chosen = asked.dtype or next((part.dtype for part in asked.change if part.dtype), None)
    if device.type == "cpu" and not place.gguf:
        _fits(Path(place.path))
    if asked.backend in ("openvino", "auto"):
        reason = _no_openvino(chosen or torch.float32, device, asked.change)
        if not reason:
            from decodery.model.openvino.load import accelerated

            try:
                model = accelerated(place, tokenizer, spec, load, asked.change, **where)
                if not (reason := _lacking(asked.change, model)):
                    return _recognised(model, place)
            except BadModel as error:
                reason = str(error)
        if asked.backend == "openvino":
            raise BadModel(f"backend=openvino: {reason}")
        LOG.info("%s runs on torch, for OpenVINO cannot be used: %s", spec, reason)
    config, path = config_of(place.path, **where), place.weights()
    if device.type == "cpu" and place.gguf:
        _fits(Path(path))
    network: Any = network_of(path, config=config, dtype=chosen or _stored(config, device), **where)
    for part in asked.change:
        part.network(network)
    try:
        network = network.to(device)
    except RuntimeError as error:
        raise BadModel(f"{spec} cannot be moved to {device}: {first_line(error)}") from error
    model = Model(network, tokenizer, name=spec, loader=load)
    model.hasten()
    return _recognised(model, place)


def _recognised(model: Model, place: Place) -> Model:
    """The model; what tells its tokenizer apart is looked up where its files were seen before (0.07 s for 49152 tokens)."""
    folder, text = Path(place.path), model.text
    if folder.is_dir():
        facts = (version("transformers"), digest_of_folder(folder, weights=False))
        text.fingerprint = found_before("vocabularies", facts, lambda: text.fingerprint)
    return model


def _found(spec: str, revision: str | None, trust_remote_code: bool) -> tuple[Place, dict[str, Any]]:
    """Where a model is, and how transformers is told so; where the hub cannot be reached, only local files are looked at."""
    place = place_of(spec)
    if place.local and revision is not None:
        raise BadModel(f"revision={revision!r} is for models on the hub; {spec} is a local one without revisions")
    where: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if not place.local and not reachable():
        where["local_files_only"] = True
    return place, where


def _tokenizer(spec: str, place: Place, where: dict[str, Any]) -> PreTrainedTokenizerBase:
    try:
        return tokenizer_of(place.path, **where)
    except BadModel as error:
        if place.local:
            raise
        raise unknown(spec, error, "local_files_only" not in where) from error


def _given(spec: Any, asked: Asked) -> Model:
    """A model of what is loaded already. It stays as it is, so options that would change it are refused."""
    model = spec if isinstance(spec, Model) else _of_pair(spec)
    here, device = model.device, asked.device
    refused = ""
    if asked.dtype not in (None, model.dtype):
        refused = f"it is in {model.dtype}, and dtype={asked.dtype} cannot change that"
    elif device is not None and (device.type != here.type or device.index not in (None, here.index)):
        refused = f"it is on {here}, and device={device} cannot change that"
    elif asked.backend not in (None, "auto", model.backend):
        refused = f"it runs on {model.backend}, and backend={asked.backend} cannot change that"
    elif asked.revision is not None or asked.trust_remote_code:
        refused = "revision= and trust_remote_code= are for models on the hub"
    elif lasting := [part for part in asked.change if part.weights]:
        refused = f"{lasting[0]} would change its weights"
    if refused:
        raise BadModel(
            f"{model.name} is loaded already and stays as it is: {refused}. Load it by its name with this option"
        )
    return model


def _of_pair(spec: Any) -> Model:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    network, tokenizer = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, None)
    if hasattr(network, "get_base_model"):  # of PEFT: the base model, into whose layers the adapter has been put
        network = network.get_base_model()
    if isinstance(network, PreTrainedModel) and isinstance(tokenizer, PreTrainedTokenizerBase | None):
        return Model(network, tokenizer, loader=load)
    raise BadModel(
        f"a model is a hub id, a directory, a .gguf file, {DEMO!r}, a loaded Model, a network of transformers, or a pair "
        f"(network, tokenizer), whose tokenizer may be None; this is {_kinds(spec)}"
    )


def _kinds(spec: Any) -> str:
    return f"({', '.join(type(one).__name__ for one in spec)})" if isinstance(spec, tuple) else type(spec).__name__


def _accelerator() -> torch.device | None:
    """The accelerator of this machine that torch can compute on, if it has one."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def _device(device: str | torch.device) -> torch.device:
    """The device, if this machine's torch can compute on it. Raises ``BadModel``."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except Exception as error:  # each device has its own kind: AssertionError, RuntimeError, ImportError ...
        raise BadModel(f"device={device} cannot be used here: {first_line(error)}; use auto or cpu") from error
    if place.type == "meta":
        raise BadModel("device=meta holds no weights; use cpu or an accelerator")
    return place


def _dtype(wanted: str | torch.dtype) -> torch.dtype | None:
    """The dtype asked for; None leaves it to the weights. Raises ``BadModel``."""
    if wanted == "auto":
        return None
    kind = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if isinstance(kind, torch.dtype) and kind.is_floating_point:
        return kind
    hint = "; weights rounded to 8 bits are a change: int8" if kind is torch.int8 else ""
    raise BadModel(f"dtype {wanted} cannot be computed in; use auto, float32, bfloat16 or float16{hint}")


def _stored(config: Any, device: torch.device) -> torch.dtype:
    """The dtype of the weights, or float32 on CPUs that would emulate it."""
    stored: torch.dtype = getattr(config, "dtype", None) or torch.float32
    return torch.float32 if device.type == "cpu" and stored == torch.float16 else stored


def _no_openvino(kind: torch.dtype, device: torch.device, change: Sequence[Change]) -> str:
    """Why OpenVINO cannot be used; empty if it can."""
    if importlib.util.find_spec("openvino") is None:
        return "it is not installed: pip install 'openvino>=2026.4'"
    if device.type != "cpu" or kind != torch.float32:
        return f"it runs float32 on CPUs, not {str(kind).removeprefix('torch.')} on {device.type}"
    lacking = [part for part in change if not part.needs <= GRAPHED]
    return f"it cannot do what the change {lacking[0]} needs" if lacking else ""


def _lacking(change: Sequence[Change], model: Model) -> str:
    """Why a change cannot be made of this model; empty if it can."""
    why = [f"{part} needs {cap.value}, and {model.missing[cap]}" for part in change for cap in part.needs - model.can]
    return why[0] if why else ""


def _fits(folder: Path) -> None:
    """Raise ``BadModel`` where the weights alone are larger than the machine's memory."""
    files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin")) if folder.is_dir() else []
    weights, memory = sum(file.stat().st_size for file in files), memory_bytes()
    if weights > memory:
        raise BadModel(
            f"its weights take {weights / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f} GiB; take a smaller model"
        )
