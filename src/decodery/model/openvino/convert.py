"""From a network to an OpenVINO graph, once for each content of its files, checked against the network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import openvino
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from decodery.core.errors import BadModel
from decodery.model.change import Change
from decodery.model.checkpoint import config_of, memory_bytes, network_of
from decodery.model.extras import astray
from decodery.model.facts import facts_of, windows_of
from decodery.model.gguf import network_in, read_once
from decodery.model.openvino.backend import OpenVinoBackend
from decodery.model.openvino.folder import GRAPH, NOTES, PAGED, UNPAGED, keep_facts
from decodery.model.openvino.fuse import join_products
from decodery.model.openvino.graphs import paged_graph
from decodery.model.openvino.paged import PagedArena
from decodery.model.openvino.places import WHOLE, everywhere, offers
from decodery.model.openvino.stored import Stored
from decodery.model.openvino.traced import traced
from decodery.model.openvino.weights import keep_codes, keep_halves
from decodery.model.probe import settle, trial_length
from decodery.model.resolve import Place
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.trial import BEHIND, check

LOG = logging.getLogger(__name__)


def convert_files(place: Place, folder: Path, name: str, change: Sequence[Change] = (), **where: Any) -> None:
    """Write the graph of the model at ``place``, changed, into ``folder``. Raises ``BadModel``."""
    config = config_of(place.path, **where)
    kind = getattr(config, "dtype", None) or torch.float32
    if kind not in (torch.float32, torch.bfloat16, torch.float16):
        raise BadModel(f"it runs float32 on CPUs, not {str(kind).removeprefix('torch.')}")
    _fits(hull(place.path, **where))
    LOG.info("converting %s for OpenVINO once; later starts skip this ...", name)
    options = {"config": config, "dtype": torch.float32, **where}
    stored: Stored | torch.dtype = kind
    if place.gguf:
        with read_once():
            network, stored = network_in(place.gguf), Stored(place.gguf)
    else:
        network = network_of(place.path, **options)
    for part in change:
        part.network(network)
    convert(network, folder, change, stored)
    LOG.info("converted %s", name)


def hull(path: str, **where: Any) -> PreTrainedModel:
    """The network without weights: what it is made of is asked, but nothing is computed with it."""
    with torch.device("meta"):
        empty: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config_of(path, **where), dtype=torch.float32, trust_remote_code=where.get("trust_remote_code", False)
        )
    with suppress(OSError):
        here = {"revision": where.get("revision") or "main", "local_files_only": where.get("local_files_only", False)}
        empty.generation_config = GenerationConfig.from_pretrained(path, **here)
    return empty


def _fits(empty: PreTrainedModel) -> None:
    """Raise ``BadModel`` where a conversion, which holds several copies in float32, would take more than the memory."""
    needed, memory = COPIES * 4 * sum(p.numel() for p in empty.parameters()), memory_bytes()
    if needed > memory:
        raise BadModel(
            f"converting it needs about {needed / 2**30:.1f} GiB of memory, this machine has {memory / 2**30:.1f} GiB"
        )


COPIES = 3
"""The network, the graph's constants, and the checked graph: for 0.54 GB of float32 weights 1.9 GB were seen, 0.4 of them
before any model is there."""


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
    facts = facts_of(network)
    keep_facts(folder, facts)
    # One graph with all outputs is tried; what is run later has some of them and computes the rest in the same way.
    whole = everywhere(facts.depth) if offers(graph, facts.depth) else WHOLE
    paged, reason = paged_graph(folder / GRAPH, facts, cut=whole)
    if paged is not None and not (reason := check(network, lambda: PagedArena(paged), length)):
        hidden = astray(tried, PagedArena(paged)) if paged.watched else "its layers were not found"
        (folder / PAGED).write_text(hidden)
        return
    LOG.info("paged attention is left out: %s", reason)
    (folder / UNPAGED).write_text(reason)
    backend = OpenVinoBackend(folder / GRAPH, facts)
    if reason := check(network, lambda: SlotArena(backend), length):
        raise BadModel(f"the converted graph's {reason}")
    if not coded:  # else the compiler would keep the weights a second time, with codes repacked
        (folder / NOTES).mkdir()
