"""A constraint over a tree of drafts: one state a row, forbidden drafts become ghosts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from decodery.core.roles import Constraint
from decodery.core.tree import TokenTree
from decodery.core.values import Tensor


def walk(constraint: Constraint, state: Any, tree: TokenTree, eos: Collection[int]) -> list[Any]:
    """The state after the committed text, then that after each node (None: a ghost); marks forbidden nodes as ghosts.

    A drawn node is never deleted, only made a ghost: deleting it would bias the output (docs/architecture.md).
    """
    states = [state]
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        after = None if tree.ghost[node] else _after(constraint, states[parent + 1], token, eos)
        if after is None:
            tree.haunt(node)
        states.append(after)
    return states


def masks(constraint: Constraint, states: Sequence[Any], eos: Collection[int]) -> list[Tensor | None]:
    """The allowed tokens at each state that is not None; end-of-sequence exactly where the constraint may end."""
    return [_with_eos(constraint.mask(s), constraint.may_end(s), eos) for s in states if s is not None]


def run(constraint: Constraint, state: Any, tokens: Sequence[int], eos: Collection[int]) -> Any:
    """The state after committed tokens; end-of-sequence leaves it as it is."""
    for token in tokens:
        state = _after(constraint, state, token, eos)
    return state


def _after(constraint: Constraint, state: Any, token: int, eos: Collection[int]) -> Any | None:
    """End-of-sequence is allowed exactly where the constraint may end; nothing that follows it will count."""
    if token in eos:
        return state if constraint.may_end(state) else None
    return constraint.advance(state, token)


def _with_eos(mask: Tensor | None, may_end: bool, eos: Collection[int]) -> Tensor | None:
    if mask is None or not eos:
        return mask
    return mask.index_fill(0, torch.tensor(sorted(eos)), may_end)
