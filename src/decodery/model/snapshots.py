"""The arena for models that take no tree mask (recurrent, hybrid): snapshots of the model's own cache.

A branch is run from a copy of the nearest ancestor's snapshot. Where a snapshot is gone, the missing tokens are run
again; so every program works, chains fastest.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from decodery.core.tree import ROOT
from decodery.core.values import Tensor
from decodery.model.arena import Answer, Arena, Feed, Handle, Node
from decodery.model.torch.backend import cache_name
from decodery.model.torch.lock import lock_of
from decodery.model.variant import PLAIN

SNAPSHOTS = 16
"""How many caches are remembered."""


class StateArena(Arena):
    """Nodes whose rows come from the model's own cache, copied where the text branches.

    ``singly``: continue a cache by one token at a time, for models that would start over with several. The tokens up to
    the first row go in one pass, as in transformers' ``generate``; so a draft changes no row.
    """

    def __init__(self, model: PreTrainedModel, context: int, singly: bool = False) -> None:
        super().__init__()
        self.model, self.context, self.singly = model, context, singly
        self._cache_name, self._lock = cache_name(model), lock_of(model)
        self._snapshots: OrderedDict[Handle, Any] = OrderedDict()
        self._opening: set[Handle] = set()
        """The nodes that went in one pass from the root; should they have to run again, they go so again."""

    def _freed(self, handle: Handle, node: Node) -> None:
        self._snapshots.pop(handle, None)
        self._opening.discard(handle)

    def _compute(self, feed: Feed) -> Answer:
        if feed.want.hidden or feed.variant != PLAIN or feed.embeds is not None or feed.states is not None:
            raise ValueError(
                "this model runs from snapshots: hidden states, layer subsets and embeddings are not to be had"
            )
        if self.singly and not feed.wanted:
            return Answer(torch.zeros(0, 0))
        rows: dict[Handle, Tensor] = {}
        children = Counter(self.nodes[h].parent for h in feed.handles)
        run: list[Handle] = []
        for handle in self._depth_first(feed.handles):
            if run and (self.nodes[handle].parent != run[-1] or children[run[-1]] > 1):
                self._run(run, rows, feed.wanted)
                run = []
            run.append(handle)
        self._run(run, rows, feed.wanted)
        wanted = [rows[h] for h in feed.handles if h in feed.wanted]
        return Answer(torch.stack(wanted) if wanted else torch.zeros(0, 0))

    def _depth_first(self, handles: Sequence[Handle]) -> list[Handle]:
        below: dict[Handle, list[Handle]] = {}
        for handle in handles:
            below.setdefault(self.nodes[handle].parent, []).append(handle)
        order: list[Handle] = []
        fresh = set(handles)
        stack = [h for h in reversed(handles) if self.nodes[h].parent not in fresh]
        while stack:
            order.append(handle := stack.pop())
            stack += reversed(below.get(handle, []))
        return order

    @torch.inference_mode()
    def _run(self, run: list[Handle], rows: dict[Handle, Tensor], wanted: Collection[Handle]) -> None:
        """Feed a stretch of nodes, each the only child of the one before, and remember the cache after it."""
        missing, handle = [], self.nodes[run[0]].parent
        while handle != ROOT and handle not in self._snapshots:
            missing.append(handle)
            handle = self.nodes[handle].parent
        cache = copy.deepcopy(self._snapshots[handle]) if handle != ROOT else DynamicCache(config=self.model.config)
        if handle != ROOT:
            self._snapshots.move_to_end(handle)
        path = [*reversed(missing), *run]
        if handle == ROOT and not self._opening & set(path):
            first = next((i for i, h in enumerate(path) if h in wanted), len(path) - 1)
            self._opening |= set(path[: first + 1])
        opening = sum(h in self._opening for h in path)
        pieces = [path[:opening], *([h] for h in path[opening:])] if self.singly else [path]
        answers = []
        for piece in filter(None, pieces):
            ids = torch.tensor([[self.nodes[h].token for h in piece]], device=self.model.device)
            with self._lock.shared():
                answers.append(self.model(input_ids=ids, use_cache=True, **{self._cache_name: cache}).logits[0].cpu())
        rows |= dict(zip(run, torch.cat(answers)[len(missing) :], strict=True))
        self._snapshots[run[-1]] = cache
        while len(self._snapshots) > SNAPSHOTS:
            self._snapshots.popitem(last=False)
