"""Networks that compute a long text otherwise than a short one: each side of the border has an arena of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from decodery.core.tree import ROOT
from decodery.core.values import LOGITS, Site, Tensor, Want
from decodery.model.arena import Answer, Arena, Feed, Handle, Node
from decodery.model.slots import Backend, Batch, Bools
from decodery.model.variant import Variant

STRETCH = 256
"""How many nodes one forward carries at most."""


class BorderArena(Arena):
    """Rows of texts of up to ``border`` tokens come from ``near``, those of longer ones from ``far``.

    A node is computed on a side once a row of that side needs it, its ancestors with it. So a text that crosses the
    border is computed anew from its start, as transformers' ``generate`` does, and a long prompt is computed once.
    """

    def __init__(self, near: Arena, far: Arena, border: int) -> None:
        super().__init__()
        self.context, self.border = far.context, border
        self._sides = (near, far)
        self._twins: tuple[dict[Handle, Handle], dict[Handle, Handle]] = ({}, {})
        """For each side: a node -> the node there that stands for it."""
        self._variants: dict[Handle, Variant] = {}
        """How the network was run for a node."""
        self._given: set[Handle] = set()
        """Nodes that came with embeddings or states, which are not kept: the other side cannot compute them."""

    @property
    def lanes(self) -> int:
        return self._sides[0].lanes

    def _freed(self, handle: Handle, node: Node) -> None:
        for arena, twins in zip(self._sides, self._twins, strict=True):
            if (twin := twins.pop(handle, None)) is not None:
                arena.release([twin])
        self._variants.pop(handle, None)
        self._given.discard(handle)

    def _compute(self, feed: Feed) -> Answer:
        self._variants |= dict.fromkeys(feed.handles, feed.variant)
        given = feed.embeds is not None or feed.states is not None
        found: dict[Handle, Answer] = {}
        for side in range(2):
            here = [h for h in feed.handles if (self.nodes[h].depth >= self.border) == bool(side)]
            due = [h for h in here if given or feed.want.trunk or h in feed.wanted]
            self._follow(side, due, feed, found)
        if given:
            self._given |= set(feed.handles)
        rows = [found[h] for h in feed.handles if h in feed.wanted]
        every = [found[h] for h in feed.handles] if feed.want.trunk else []
        logits = torch.stack([row.logits for row in rows]) if rows else torch.zeros(0, 0)
        return Answer(logits, _states(rows), _states(every))

    def _follow(self, side: int, due: Sequence[Handle], feed: Feed, found: dict[Handle, Answer]) -> None:
        """Compute these nodes on a side, and before them the ancestors that it lacks."""
        missing = self._lacking(side, due)
        if lost := missing & self._given:
            raise ValueError(
                f"{len(lost)} tokens of this text came as embeddings or states, which were not kept: its rows beyond "
                f"{self.border} tokens cannot be computed"
            )
        for nodes in self._stretches(missing - set(due)):
            self._run(side, nodes, Feed(nodes, [], [], (), LOGITS, self._variants[nodes[0]]), found)
        place = {handle: i for i, handle in enumerate(feed.handles)}
        for nodes in self._stretches(due):
            rows = [place[h] for h in nodes]
            embeds, states = (None if x is None else x[rows] for x in (feed.embeds, feed.states))
            wanted = [h for h in nodes if feed.want.trunk or h in feed.wanted]
            self._run(
                side, nodes, Feed(nodes, [], [], wanted, Want(feed.want.hidden), feed.variant, embeds, states), found
            )

    def _lacking(self, side: int, due: Iterable[Handle]) -> set[Handle]:
        """These nodes and their ancestors, as far as the side does not have them."""
        missing: set[Handle] = set()
        for handle in due:
            while handle != ROOT and handle not in self._twins[side] and handle not in missing:
                missing.add(handle)
                handle = self.nodes[handle].parent
        return missing

    def _stretches(self, handles: Iterable[Handle]) -> Iterator[list[Handle]]:
        """Parents before children, at most ``STRETCH`` at a time, those of one stretch through the same layers."""
        ordered = sorted(handles, key=lambda h: self.nodes[h].depth)
        for _, same in groupby(ordered, lambda h: self._variants[h]):
            nodes = list(same)
            yield from (nodes[i : i + STRETCH] for i in range(0, len(nodes), STRETCH))

    def _run(self, side: int, nodes: list[Handle], feed: Feed, found: dict[Handle, Answer]) -> None:
        """One forward on a side; its rows go to ``found``."""
        arena, twins = self._sides[side], self._twins[side]
        fresh = dict(zip(nodes, arena.reserve(len(nodes)), strict=True))
        above = [self.nodes[h].parent for h in nodes]
        answer = arena.extend(
            feed._replace(
                handles=list(fresh.values()),
                tokens=[self.nodes[h].token for h in nodes],
                parents=[ROOT if p == ROOT else fresh[p] if p in fresh else twins[p] for p in above],
                wanted={fresh[h] for h in feed.wanted},
            )
        )
        twins.update(fresh)
        for i, handle in enumerate(h for h in nodes if h in feed.wanted):
            found[handle] = Answer(answer.logits[i], {layer: states[i] for layer, states in answer.hidden.items()})


class Lengthened:
    """A backend whose every forward holds a position beyond the border, so that the frequencies of long texts are used.

    The network takes them by the longest position of a forward. An extra query has that position; it writes to the slot
    that the arena keeps for padding, and nothing sees it.
    """

    def __init__(self, backend: Backend, border: int) -> None:
        self._backend, self._border = backend, border
        self.context, self.windows, self.appends = backend.context, backend.windows, backend.appends
        self.open, self.reserve, self.move, self.close = backend.open, backend.reserve, backend.move, backend.close

    def forward(self, store: Any, batch: Batch) -> tuple[Tensor, dict[int | Site, Tensor]]:
        """The backend's forward, with the extra query in front."""
        position, slot = np.full((len(batch.lanes), 1), self._border), np.zeros((len(batch.lanes), 1), np.int64)
        longer = replace(
            batch,
            ids=np.concatenate([batch.ids[:, :1], batch.ids], 1),
            positions=np.concatenate([position, batch.positions], 1),
            slots=np.concatenate([slot, batch.slots], 1),
            visible={kind: _sees_itself(see) for kind, see in batch.visible.items()},
            columns=[column + 1 for column in batch.columns],
            embeds=_behind_zeros(batch.embeds),
            states=_behind_zeros(batch.states),
        )
        logits, hidden = self._backend.forward(store, longer)
        return logits, {site: states[:, 1:] for site, states in hidden.items()}


def _states(rows: Sequence[Answer]) -> dict[int | Site, Tensor]:
    return {site: torch.stack([row.hidden[site] for row in rows]) for site in (rows[0].hidden if rows else ())}


def _sees_itself(visible: Bools) -> Bools:
    """``[b, n, t]`` -> ``[b, 1 + n, t]``: the extra query sees the slot that it writes to."""
    first = np.zeros_like(visible[:, :1])
    first[:, :, 0] = True
    return np.concatenate([first, visible], 1)


def _behind_zeros(x: Tensor | None) -> Tensor | None:
    return None if x is None else F.pad(x, (0, 0, 1, 0))
