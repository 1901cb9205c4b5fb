"""From the files of a model to a model that OpenVINO runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decodery.core.errors import BadModel, first_line
from decodery.core.files import make_once
from decodery.core.values import Cap
from decodery.model.ability import GRAPHED, Ability
from decodery.model.arena import Arena
from decodery.model.change import Change
from decodery.model.facts import Facts, Unloaded
from decodery.model.model import Model
from decodery.model.openvino.backend import OpenVinoBackend
from decodery.model.openvino.begun import graph_in
from decodery.model.openvino.folder import GRAPH, PAGED, facts_in, folder_of
from decodery.model.openvino.paged import PagedArena
from decodery.model.resolve import Place
from decodery.model.slots import SlotArena

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOG = logging.getLogger(__name__)


def accelerated(
    place: Place, tokenizer: Any, name: str, loader: Callable[..., Model], change: Sequence[Change] = (), **where: Any
) -> Model:
    """The model at ``place`` over its graph, converted now if need be; its torch weights are not kept in memory.

    Raises ``BadModel`` where the graph cannot be made or kept, or where its rows differ from the network's.
    """

    def build(folder: Path) -> None:
        from decodery.model.openvino.convert import convert_files  # imports all that a conversion needs

        convert_files(place, folder, name, change, **where)

    def network() -> PreTrainedModel:
        from decodery.model.openvino.convert import hull

        return hull(place.path, **where)

    try:
        folder = make_once(folder_of(place, change, **where), build)
        facts = facts_in(folder)
        opened, cache, hidden = _opener(folder, facts)
    except BadModel:
        raise
    except OSError as error:
        raise BadModel(f"the graph of {name} cannot be kept: {error}. Set DECODERY_CACHE to another folder") from error
    except Exception as error:  # the tracer and the compiler have many kinds
        raise BadModel(f"{name} cannot be converted for OpenVINO: {first_line(error)}") from error
    missing = dict.fromkeys(
        set(Cap) - GRAPHED, "the OpenVINO graph runs whole layers on tokens; load with backend=torch"
    )
    if hidden:
        missing |= dict.fromkeys(
            GRAPHED - {Cap.TREE}, f"the OpenVINO graph has logits only, for {hidden}; load with backend=torch"
        )
    ability = Ability(frozenset(Cap) - missing.keys(), opened, missing, cache)
    source = Unloaded(facts, network, torch.device("cpu"), torch.float32)
    return Model(source, tokenizer, name, backend="openvino", ability=ability, loader=loader)


def _opener(folder: Path, facts: Facts) -> tuple[Callable[[int], Arena], str, str]:
    """How caches are opened over the graph in a folder: in pages where that was found right. Further, what these caches
    are, and why there are no hidden states (empty: there are)."""
    paged, reason = graph_in(folder)
    if paged is not None:
        return lambda _: PagedArena(paged), str(paged), (folder / PAGED).read_text()
    if (folder / PAGED).exists():
        LOG.warning("the graph in %s runs without paged attention: %s", folder, reason)
    backend, unused = OpenVinoBackend(folder / GRAPH, facts), f"paged attention is not used: {reason}"
    return lambda lanes: SlotArena(backend, lanes), f"the graph's own state, for {unused}", unused
