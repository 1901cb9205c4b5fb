"""What a loaded model can do, found out by experiment and never by its name.

A model is as able as its rows are right: the trial (``trial.py``) does what decoding will do. What a network does beyond a
window of thousands of tokens is tried on a copy over the same weights in which the window is small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from decodery.core.errors import BadModel
from decodery.core.values import Cap
from decodery.model.ability import Ability
from decodery.model.arena import Arena
from decodery.model.border import BorderArena, Lengthened
from decodery.model.extras import lacking
from decodery.model.facts import Reach, reaches_of, rope_border, rope_tables
from decodery.model.positions import position_limit
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.snapshots import StateArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.trial import (
    BEHIND,
    SHORT,
    Unable,
    Words,
    blamed,
    check,
    dependence,
    disagreement,
    truth,
    twin,
)
from decodery.model.turn import forward

SMALL = 4
"""What long windows are made in a copy."""

AFFORDABLE = 64
"""Texts up to this length are tried as they are."""

WORK = 1e11
"""How many tokens times parameters a longer trial may take: some seconds."""

STEPS = 6
"""How many short drafts a cache of the network's own is continued by."""

DRAFTED = 3 * STEPS
"""The most tokens that these are."""


def examine(network: PreTrainedModel) -> Ability:
    """Try trees, freed slots, long texts and layer subsets against separate passes; takes a few forwards.

    Raises ``BadModel`` where not even a chain over the model's own cache does as the model alone.
    """
    if network.training:
        raise BadModel(
            "the network is in training mode, where dropout makes its rows random: call network.eval() first"
        )
    backend = TorchBackend(network)
    backend.context = min(backend.context, position_limit(network) or backend.context)
    if reason := settle(backend):
        return _snapshots(backend, reason)
    missing = lacking(backend, _border(backend))
    can = frozenset(Cap) - missing.keys()
    several = cache(lambda: not check(network, lambda: _arena(backend, 2), alone=_border(backend) is not None))
    return Ability(can, lambda lanes: _arena(backend, lanes if lanes > 1 and several() else 1), missing)


def settle(backend: TorchBackend) -> str:
    """Say why trees in slots give wrong rows; else leave the backend with the windows and the context that are right."""
    named = backend.windows
    reasons = []
    for windows in (named, dict.fromkeys(named, Reach())):
        backend.windows = windows
        reasons.append(_short(backend) or _long(backend, named))
        if not reasons[-1]:
            return ""
        if windows == dict.fromkeys(named, Reach()):
            break
    backend.windows = named
    return reasons[0]


def _short(backend: TorchBackend) -> str:
    """A text that leaves the short windows and chunks."""
    length = trial_length(backend, BEHIND)
    return check(backend.model, lambda: _arena(backend), length, alone=_border(backend) is not None)


def _long(backend: TorchBackend, named: dict[str, Reach]) -> str:
    """What the network does beyond the lengths that its configuration names."""
    sizes = {name: size for name, size in reaches_of(backend.config).items() if size >= AFFORDABLE}
    border = _border(backend)
    if not sizes and border is None:
        return ""
    try:
        network = twin(backend.model, sizes, SMALL)
    except Unable as error:
        return str(error)
    tried = TorchBackend(network)
    tried.context, tried.windows = backend.context, backend.windows
    if sizes:
        tried.windows = {
            kind: reach._replace(size=SMALL) if reach.size in sizes.values() else reach
            for kind, reach in backend.windows.items()
        }
        if reason := check(network, lambda: SlotArena(tried), alone=border is not None):
            return f"beyond {' or '.join(f'{name} {size}' for name, size in sizes.items())} tokens {reason}"
        if backend.windows != named and (reason := _whole(backend, max(sizes.values()))):
            return reason
    if border is not None:
        for table in rope_tables(network.config.get_text_config()):
            table["original_max_position_embeddings"] = SHORT + 2
        if check(network, lambda: _arena(tried), alone=True):
            backend.context = min(backend.context, border)
    return ""


def _whole(backend: TorchBackend, size: int) -> str:
    """A window that is named but does not show: a text that leaves it, if that does not take too long."""
    if (size + BEHIND) * backend.model.num_parameters() > WORK:
        return f"its configuration names a window of {size} tokens; whether it holds takes too long to try"
    if size + 6 > backend.context - BEHIND:
        return ""
    return check(backend.model, lambda: _arena(backend), size + 6)


def _border(backend: TorchBackend) -> int | None:
    """Where other frequencies begin, if a text may be so long."""
    border = rope_border(backend.config)
    return border if border is not None and border < backend.context else None


def _arena(backend: TorchBackend, lanes: int = 1) -> Arena:
    near = SlotArena(backend, lanes)
    if (border := _border(backend)) is None:
        return near
    return BorderArena(near, SlotArena(Lengthened(backend, border), lanes, padded=True), border)


def trial_length(backend: TorchBackend, behind: int) -> int:
    """How long a prompt leaves the short windows, and still fits with what comes behind it."""
    sizes = [size for size in reaches_of(backend.config).values() if size < AFFORDABLE]
    return max(2, min(max([SHORT, *(size + 6 for size in sizes)]), backend.context - behind))


def _snapshots(backend: TorchBackend, tree: str) -> Ability:
    """Chains over the network's own cache, for networks that take no tree mask."""
    network = backend.model
    # Its cache is not computed anew where the frequencies change.
    backend.context = min(backend.context, rope_border(backend.config) or backend.context)
    missing = {Cap.TREE: f"its rows in a tree differ from separate passes ({tree})"}
    missing |= dict.fromkeys(set(Cap) - {Cap.TREE}, "it runs from snapshots of its own cache")
    length = trial_length(backend, BEHIND + DRAFTED)
    chain = ""
    for singly in (False, True):
        snapshots = partial(StateArena, network, backend.context, singly)
        chain = check(network, snapshots, length, STEPS, alone=True) or ("" if singly else _long_chain(backend))
        if not chain:
            return Ability(frozenset(), _ignoring_lanes(snapshots), missing, "snapshots of the network's own")
    if not (plain := _generates(network, snapshots)):
        missing[Cap.TREE] += f"; with its own cache they differ as well ({chain}), so it answers as its generate() does"
        return Ability(frozenset(), _ignoring_lanes(snapshots), missing, "snapshots of the network's own")
    raise BadModel(
        f"{type(network).__name__} gives other logits with a cache than without: {chain}. Tree: {tree}. "
        f"Compared with generate(): {plain}. Decodery needs a causal model whose cache can be continued"
    )


def _long_chain(backend: TorchBackend) -> str:
    """Say why drafts beyond a long window cannot go through the network's own cache in one pass; empty if they can."""
    sizes = {name: size for name, size in reaches_of(backend.config).items() if size >= AFFORDABLE}
    if not sizes:
        return ""
    try:
        network = twin(backend.model, sizes, SMALL)
    except Unable as error:
        return str(error)
    return check(network, partial(StateArena, network, backend.context), SHORT, STEPS, alone=True)


@torch.inference_mode()
def _generates(network: PreTrainedModel, snapshots: Callable[[], Arena]) -> str:
    """Say why single steps over snapshots are not what a causal network's ``generate`` does; empty if they are."""
    words = Words(network)
    prompt = words.some(SHORT)
    try:
        with blamed(network):
            one, other = (truth(network, [prompt, [*prompt, *words.some(2)]])[:1] for _ in range(2))
            if reason := disagreement(one, other):
                return f"its rows depend on later tokens ({reason})"
            options = {"max_new_tokens": STEPS, "output_logits": True, "return_dict_in_generate": True}
            config = GenerationConfig(**options)  # type: ignore[no-untyped-call]
            ids = torch.tensor([prompt], device=network.device)
            generate: Any = network.generate
            answer = generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
            session, rows = Session(snapshots(), prompt), []
            for token in answer.sequences[0, SHORT:].tolist():
                rows.append(forward(session).logits[0])
                session.commit([token])
            reason = disagreement(torch.stack(rows), torch.cat(answer.logits))
            return reason or dependence(network, snapshots, STEPS)
    except Unable as error:
        return str(error)


def _ignoring_lanes(snapshots: Callable[[], Arena]) -> Callable[[int], Arena]:
    return lambda _: snapshots()
