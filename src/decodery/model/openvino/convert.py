"""From a network to an OpenVINO graph, once for each content of its files, checked against the network."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import openvino
import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from decodery.core.errors import BadModel
from decodery.core.files import make_once
from decodery.core.values import Cap
from decodery.model.arena import Arena
from decodery.model.change import Change
from decodery.model.checkpoint import first_line, memory_bytes, network_of
from decodery.model.diskcache import cache_dir, digest, digest_of_folder
from decodery.model.gguf import network_in
from decodery.model.model import Model
from decodery.model.openvino.backend import NOTES, OpenVinoBackend
from decodery.model.openvino.fuse import join_products
from decodery.model.openvino.paged import paged
from decodery.model.openvino.stored import Stored
from decodery.model.openvino.traced import traced
from decodery.model.openvino.weights import keep_codes, keep_halves
from decodery.model.probe import Ability, settle, trial_length
from decodery.model.resolve import Place
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.torch.facts import windows_of
from decodery.model.trial import BEHIND, check

LOG = logging.getLogger(__name__)

FORMAT = 5
"""Of the converted graph; raise it when the conversion, or what a ``Change`` does to a graph, is another."""


def accelerated(
    place: Place,
    config: Any,
    tokenizer: Any,
    name: str,
    loader: Callable[..., Model],
    change: Sequence[Change] = (),
    **where: Any,
) -> Model:
    """The model at ``place`` over its graph, converted now if need be; its torch weights are not kept in memory.

    Raises ``BadModel`` where the graph cannot be made or kept, or where its rows differ from the network's.
    """

    def build(folder: Path) -> None:
        _fits(hull)
        LOG.info("converting %s for OpenVINO once; later starts skip this ...", name)
        options = {"config": config, "dtype": torch.float32, **where}
        network = network_in(place.gguf) if place.gguf else network_of(place.path, **options)
        for part in change:
            part.network(network)
        convert(network, folder, change, _stored(place, config))
        LOG.info("converted %s", name)

    try:
        hull = _hull(place.path, config, **where)
        folder = make_once(folder_of(place, config, change), build)
        opened = _opener(folder, config)
    except BadModel:
        raise
    except OSError as error:
        raise BadModel(f"the graph of {name} cannot be kept: {error}. Set DECODERY_CACHE to another folder") from error
    except Exception as error:  # the tracer and the compiler have many kinds
        raise BadModel(f"{name} cannot be converted for OpenVINO: {first_line(error)}") from error
    missing = dict.fromkeys(set(Cap) - {Cap.TREE}, "the OpenVINO graph has logits only; load with backend=torch")
    ability = Ability(frozenset({Cap.TREE}), opened, missing)
    return Model(hull, tokenizer, name, backend="openvino", ability=ability, loader=loader)


def _fits(hull: PreTrainedModel) -> None:
    """Raise ``BadModel`` where a conversion, which holds several copies in float32, would take more than the memory."""
    needed, memory = COPIES * 4 * sum(p.numel() for p in hull.parameters()), memory_bytes()
    if needed > memory:
        raise BadModel(
            f"converting it needs about {needed / 2**30:.1f} GiB of memory, this machine has {memory / 2**30:.1f} GiB"
        )


COPIES = 3
"""The network, the graph's constants, and the checked graph: for 0.54 GB of float32 weights 1.9 GB were seen, 0.4 of them
before any model is there."""

GRAPH = "model.xml"

PAGED = "paged"
"""An empty file beside a graph whose rows are right over paged attention too."""

SIZES = 3
"""For so many sizes of passes a graph of its own is kept; each takes about 1.5 times the memory of the weights."""


def _opener(folder: Path, config: Any) -> Callable[[int], Arena]:
    """How caches are opened over the graph in a folder: in pages where that was found right at the conversion."""
    if (folder / PAGED).exists():
        in_pages, reason = paged(folder / GRAPH, config, SIZES)
        if in_pages is not None:
            return lambda _: in_pages()
        LOG.warning("the graph in %s runs without paged attention: %s", folder, reason)
    backend = OpenVinoBackend(folder / GRAPH, config)
    return lambda lanes: SlotArena(backend, lanes)


def convert(
    network: PreTrainedModel, folder: Path, change: Sequence[Change] = (), stored: Stored | torch.dtype | None = None
) -> None:
    """Write the graph of a network, changed already, into ``folder``. Raises ``BadModel`` where its rows differ.

    ``stored``: what the weights are in the model's files, a GGUF's rows or a dtype; the graph keeps them so, unless a
    change has made others of them.
    """
    if any(part.weights for part in change):
        stored = None
    graph, coded = traced(network), 0
    if isinstance(stored, Stored):
        join_products(graph, stored.form)
        coded = keep_codes(graph, stored)
    else:
        join_products(graph)
        keep_halves(graph, stored)
    for part in change:
        part.graph(graph)
    try:
        openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    except RuntimeError as error:  # its message speaks of iostream
        raise OSError(f"cannot write {folder / GRAPH}; is the disk full?") from error
    tried = TorchBackend(network)
    if reason := settle(tried):
        raise BadModel(f"the converted graph's {reason}")
    if tried.windows != windows_of(network.config.get_text_config()):
        raise BadModel("the converted graph's window has no effect in the network")
    length = trial_length(tried, BEHIND)
    in_pages, reason = paged(folder / GRAPH, network.config)
    if in_pages is not None and not (reason := check(network, in_pages, length)):
        (folder / PAGED).touch()
        return
    LOG.info("paged attention is left out: %s", reason)
    backend = OpenVinoBackend(folder / GRAPH, network.config)
    if reason := check(network, lambda: SlotArena(backend), length):
        raise BadModel(f"the converted graph's {reason}")
    if not coded:  # else the compiler would keep the weights a second time, with codes repacked
        (folder / NOTES).mkdir()


def _stored(place: Place, config: Any) -> Stored | torch.dtype | None:
    return Stored(place.gguf) if place.gguf else getattr(config, "dtype", None)


def folder_of(place: Place, config: Any, change: Sequence[Change] = ()) -> Path:
    """Where the graph of the model at ``place`` is kept: another folder for any other content of the model's files."""
    path, content = place.path, [digest(place.gguf)] if place.gguf else []
    if Path(path).is_dir():
        content.append(digest_of_folder(Path(path)))
    else:
        content += [path, str(getattr(config, "_commit_hash", None)), config.to_json_string()]
    facts = (FORMAT, content, [repr(part) for part in change], transformers.__version__, openvino.__version__)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    kind = "-".join(["openvino", *(type(part).__name__.lower() for part in change)])
    return cache_dir() / f"{Path(path).name}-{kind}-{key}"


def _hull(path: str, config: Any, **where: Any) -> PreTrainedModel:
    """The network without weights: what it is made of is asked, but nothing is computed with it."""
    with torch.device("meta"):
        hull: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            deepcopy(config), dtype=torch.float32, trust_remote_code=where.get("trust_remote_code", False)
        )
    with suppress(OSError):
        hull.generation_config = GenerationConfig.from_pretrained(path, revision=where.get("revision") or "main")
    return hull
