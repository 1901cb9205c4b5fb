"""What trees in slots offer beyond rows of tokens, each tried: layer subsets, halves of layers, embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch

from decodery.core.tree import ROOT
from decodery.core.values import Cap, Site, Tensor, Want
from decodery.model.arena import Arena, Feed
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.trial import SHORT, Unable, Words, blamed, disagreement, truth
from decodery.model.turn import forward
from decodery.model.variant import through


def lacking(backend: TorchBackend, border: int | None) -> dict[Cap, str]:
    """What cannot be had besides trees, and why. ``border``: where texts are computed anew from their tokens."""
    missing = _layers(backend)
    if border is None:
        missing |= _embeds(backend)
    else:
        missing[Cap.EMBEDS] = f"texts of more than {border} tokens are computed anew from their tokens"
    return missing | ({Cap.HALVES: missing[Cap.LAYERS]} if Cap.LAYERS in missing else _halves(backend))


def astray(backend: TorchBackend, other: Arena) -> str:
    """Say which hidden states of another arena are not those of the network; empty if all are."""
    words = Words(backend.model).some(SHORT)
    want, rows = Want(frozenset({*range(backend.depth), Site.FINAL})), []
    for arena in (other, SlotArena(backend)):
        handles = arena.reserve(len(words))
        rows.append(arena.extend(Feed(handles, words, [ROOT, *handles[:-1]], handles, want)).hidden)
    for site in want.hidden:
        if reason := disagreement(rows[0][site], rows[1][site]):
            where = site.value if isinstance(site, Site) else f"after layer {site}"
            return f"its hidden states {where}: {reason.replace('logits', 'they')}"
    return ""


def _layers(backend: TorchBackend) -> dict[Cap, str]:
    """Stop half way and resume from the hidden states: the same logits as in one go."""
    if backend.surgery.layers is None:
        return {Cap.LAYERS: "its layers were not found", Cap.HIDDEN: "its layers were not found"}
    prompt = Words(backend.model).some(SHORT)
    half, arena = backend.depth // 2, SlotArena(backend)
    low, high = through(range(half)), through(range(half, backend.depth))
    parents: list[int] = [ROOT, *range(len(prompt) - 1)]
    try:
        with blamed(backend.model):
            handles = arena.reserve(len(prompt))
            want = Want(frozenset({half - 1}))
            stopped = arena.extend(Feed(handles, prompt, parents, handles, want, low))
            arena = SlotArena(backend)
            arena.reserve(len(prompt))
            feed = Feed(handles, prompt, parents, {handles[-1]}, variant=high, states=stopped.hidden[half - 1])
            reason = disagreement(arena.extend(feed).logits, truth(backend.model, [prompt]))
    except Unable as error:
        reason = str(error)
    return {Cap.LAYERS: reason} if reason else {}


def _halves(backend: TorchBackend) -> dict[Cap, str]:
    """A layer whose attention and MLP add nothing is a layer left out."""
    words, middle = Words(backend.model).some(SHORT), backend.depth // 2

    def row(layers: Iterable[int]) -> Tensor:
        return forward(Session(SlotArena(backend), words, prompt=0, variant=through(layers))).logits

    try:
        both = ExitStack()
        both.enter_context(backend.lock.alone())
        for attention in (True, False):
            both.enter_context(backend.surgery.without(middle, attention=attention))
    except ValueError as error:
        both.close()
        return {Cap.HALVES: str(error)}
    try:
        with blamed(backend.model):
            with both:
                halved = row(range(backend.depth))
            reason = disagreement(halved, row(set(range(backend.depth)) - {middle}))
    except Unable as error:
        reason = str(error)
    return {Cap.HALVES: reason} if reason else {}


@torch.inference_mode()
def _embeds(backend: TorchBackend) -> dict[Cap, str]:
    """Embeddings instead of tokens: the same logits."""
    words = Words(backend.model).some(SHORT)
    try:
        with blamed(backend.model):
            arena = SlotArena(backend)
            handles = arena.reserve(len(words))
            embeds = backend.model.get_input_embeddings()(torch.tensor(words, device=backend.model.device)).detach()
            feed = Feed(handles, words, [ROOT, *handles[:-1]], {handles[-1]}, embeds=embeds)
            reason = disagreement(arena.extend(feed).logits, truth(backend.model, [words]))
    except Unable as error:
        reason = str(error)
    return {Cap.EMBEDS: reason} if reason else {}
