"""What a constraint promises: its states are values, and mask, advance and the walk over a tree say the same."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from decodery.core.roles import Constraint
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Scheme
from decodery.core.walk import walk
from decodery.laws.specimens import TOYS, bound, claim

DEPTH = 4
MOST = 40
"""How many states of a level are followed."""


def values(one: Constraint) -> None:
    """A token is in the mask exactly where it may follow; nothing that is asked or followed changes an earlier state."""
    name = type(one).__name__
    for toy in TOYS.values():
        constraint = bound(one, toy)
        level: list[tuple[tuple[int, ...], Any]] = [((), constraint.start((0, 1)))]
        seen: list[tuple[Any, Any, Any]] = []
        for _ in range(DEPTH):
            following = []
            for words, state in level:
                told = _told(constraint, state)
                seen.append((words, state, told))
                for token in set(range(toy.vocab)) - toy.eos:
                    after = constraint.advance(state, token)
                    allowed = told[0] is None or told[0][token]
                    claim((after is not None) == allowed, f"{name}: mask and advance differ on {token} after {words}")
                    claim(_told(constraint, state) == told, f"{name}: advance changes the state after {words}")
                    if after is not None:
                        following.append(((*words, token), after))
            level = following[:MOST]
        claim(len(seen) > 1, f"{name} allows nothing at all under its specimen parameters")
        for words, state, told in seen:
            claim(_told(constraint, state) == told, f"{name}: the state after {words} changed later")
            fresh = constraint.start((0, 1))
            for token in words:
                fresh = constraint.advance(fresh, token)
            claim(_told(constraint, fresh) == told, f"{name}: a second text of the tokens {words} is treated otherwise")


def walked(one: Constraint) -> None:
    """Over a tree, exactly the nodes whose path is forbidden become ghosts, and nothing else of the tree changes."""
    name = type(one).__name__
    for toy in TOYS.values():
        constraint = bound(one, toy)
        for seed in range(30):
            tree = _tree(random.Random(seed))
            before = copy.deepcopy(tree)
            state = constraint.start((0, 1))
            states = walk(constraint, state, tree, toy.eos)
            claim(
                (tree.tokens, tree.parents, tree.depths, tree.scheme)
                == (before.tokens, before.parents, before.depths, before.scheme)
                and all(
                    a is b or (a is not None and b is not None and torch.equal(a, b))
                    for a, b in zip(tree.q, before.q, strict=True)
                ),
                f"{name}: the walk changes more than ghosts",
            )
            for node in range(len(tree)):
                allowed = _follows(constraint, state, tree.words(node), toy.eos)
                ghost = before.ghost[node] or not allowed
                claim(
                    tree.ghost[node] == ghost,
                    f"{name}: node {tree.words(node)} is a ghost where it should not be, or not",
                )
                claim((states[node + 1] is None) == ghost, f"{name}: the state of node {tree.words(node)} is missing")


def _follows(constraint: Constraint, state: Any, words: Sequence[int], eos: Any) -> bool:
    """Whether these tokens may follow, by masks and ``may_end`` alone."""
    for token in words:
        if token in eos:
            if not constraint.may_end(state):
                return False
            continue
        mask = constraint.mask(state)
        if mask is not None and not mask[token]:
            return False
        state = constraint.advance(state, token)
    return True


def _told(constraint: Constraint, state: Any) -> tuple[tuple[bool, ...] | None, bool]:
    """All that a constraint says of a state."""
    mask = constraint.mask(state)
    return None if mask is None else tuple(mask.tolist()), constraint.may_end(state)


def _tree(rng: random.Random) -> TokenTree:
    tree = TokenTree(scheme=Scheme.IID)
    q = torch.full((3,), 1 / 3, dtype=torch.float64)
    for node in range(8):
        tree.add(rng.randrange(3), rng.randint(ROOT, node - 1), q)
    return tree


LAWS: Sequence[Callable[[Any], None]] = (values, walked)
