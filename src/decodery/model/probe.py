"""What a loaded model can do, found out by experiment and never by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import PreTrainedModel

from decodery.core.errors import BadModel
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Cap, Tensor, Want
from decodery.model.arena import Arena, Feed
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.snapshots import StateArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.turn import forward
from decodery.model.variant import through

TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-6}
"""Largest difference allowed, relative to the spread of the logits."""


@dataclass
class Ability:
    """The outcome: ``can``, how to open an arena, and for what is missing, why."""

    can: frozenset[Cap]
    open: Callable[[int], Arena]
    missing: dict[Cap, str] = field(default_factory=dict)


def examine(network: PreTrainedModel) -> Ability:
    """Try a three-node tree and a layer subset against separate passes; takes a few forwards.

    Raises ``BadModel`` where not even a chain over the model's own cache agrees with passes without a cache.
    """
    if network.training:
        raise BadModel(
            "the network is in training mode, where dropout makes its rows random: call network.eval() first"
        )
    backend = TorchBackend(network)
    reason = check(network, lambda: SlotArena(backend))
    if not reason:
        missing = _layers(backend) | _embeds(backend)
        missing |= {Cap.HALVES: missing[Cap.LAYERS]} if Cap.LAYERS in missing else _halves(backend)
        can = frozenset(Cap) - missing.keys()
        return Ability(can, lambda lanes: SlotArena(backend, lanes), missing)
    missing = {Cap.TREE: f"its rows in a tree differ from separate passes ({reason})"}
    missing |= dict.fromkeys(set(Cap) - {Cap.TREE}, "it runs from snapshots of its own cache")
    chain = ""
    for singly in (False, True):
        snapshots = partial(StateArena, network, backend.context, singly)
        if not (chain := check(network, snapshots)):
            return Ability(frozenset(), _ignoring_lanes(snapshots), missing)
    raise BadModel(
        f"{type(network).__name__} gives other logits with a cache than without: {chain}. Tree: {reason}. "
        "Decodery needs a causal model whose cache can be continued"
    )


def check(network: PreTrainedModel, arena: Callable[[], Arena]) -> str:
    """Compare a prompt and a three-node tree in an arena with passes without a cache.

    Says why the arena cannot be used; empty if it can.
    """
    words = _words(network)
    prompt, (a, b, c) = words[:-3], words[-3:]
    tree = TokenTree()
    first = tree.add(a)
    tree.add(b)
    tree.add(c, first)
    chain = _plain(network, [*prompt, a, c])[-3:]
    truth = torch.stack([chain[0], chain[1], _plain(network, [*prompt, b])[-1], chain[2]])
    try:
        session = Session(arena(), prompt[: len(prompt) // 2])
        forward(session)
        session.commit(prompt[len(prompt) // 2 :])
        return _disagreement(forward(session, tree).logits, truth)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _words(network: PreTrainedModel) -> list[int]:
    """Random tokens, enough to leave a short sliding window."""
    window = getattr(network.config.get_text_config(), "sliding_window", None) or 64
    length = window + 6 if window < 64 else 9
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary_of(network), (length,), generator=generator).tolist()


def _ignoring_lanes(snapshots: Callable[[], Arena]) -> Callable[[int], Arena]:
    return lambda _: snapshots()


def vocabulary_of(network: PreTrainedModel) -> int:
    """How many tokens the model's rows speak of, which may be more than the tokenizer has."""
    return int(network.config.get_text_config().vocab_size)


@torch.inference_mode()
def _plain(network: PreTrainedModel, words: Sequence[int]) -> Tensor:
    answer: Tensor = network(input_ids=torch.tensor([words], device=network.device), use_cache=False).logits[0]
    return answer


def _layers(backend: TorchBackend) -> dict[Cap, str]:
    """Stop half way and resume from the hidden states: the same logits as in one go."""
    if backend.surgery.layers is None:
        return {Cap.LAYERS: "its layers were not found", Cap.HIDDEN: "its layers were not found"}
    prompt = _words(backend.model)
    truth = _plain(backend.model, prompt)[-1]
    half, arena = backend.depth // 2, SlotArena(backend)
    low, high = through(range(half)), through(range(half, backend.depth))
    parents: list[int] = [ROOT, *range(len(prompt) - 1)]
    try:
        handles = arena.reserve(len(prompt))
        want = Want(frozenset({half - 1}))
        stopped = arena.extend(Feed(handles, prompt, parents, handles, want, low))
        arena = SlotArena(backend)
        arena.reserve(len(prompt))
        feed = Feed(handles, prompt, parents, {handles[-1]}, variant=high, states=stopped.hidden[half - 1])
        reason = _disagreement(arena.extend(feed).logits, truth[None])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return {Cap.LAYERS: reason} if reason else {}


def _halves(backend: TorchBackend) -> dict[Cap, str]:
    """A layer whose attention and MLP add nothing is a layer left out."""
    words, middle = _words(backend.model), backend.depth // 2

    def row(layers: Iterable[int]) -> Tensor:
        return forward(Session(SlotArena(backend), words, prompt=0, variant=through(layers))).logits

    try:
        left_out = row(set(range(backend.depth)) - {middle})
        cut = backend.surgery.without
        with backend.lock.alone(), cut(middle, attention=True), cut(middle, attention=False):
            reason = _disagreement(row(range(backend.depth)), left_out)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return {Cap.HALVES: reason} if reason else {}


@torch.inference_mode()
def _embeds(backend: TorchBackend) -> dict[Cap, str]:
    """Embeddings instead of tokens: the same logits."""
    words = _words(backend.model)
    try:
        arena = SlotArena(backend)
        handles = arena.reserve(len(words))
        embeds = backend.model.get_input_embeddings()(torch.tensor(words, device=backend.model.device)).detach()
        feed = Feed(handles, words, [ROOT, *handles[:-1]], {handles[-1]}, embeds=embeds)
        reason = _disagreement(arena.extend(feed).logits, _plain(backend.model, words)[-1:])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return {Cap.EMBEDS: reason} if reason else {}


def _disagreement(rows: Tensor, truth: Tensor) -> str:
    """Empty if the rows agree up to rounding."""
    if rows.shape != truth.shape:
        return f"rows of shape {list(rows.shape)} where {list(truth.shape)} was due"
    difference = float((rows - truth).abs().max())
    allowed = TOLERANCE.get(truth.dtype, 6e-2) * max(float(truth.float().std()), 1e-6) * 10
    return "" if difference <= allowed else f"logits differ by {difference:.2g}"
