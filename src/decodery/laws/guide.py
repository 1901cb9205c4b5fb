"""What a guide promises: each row is guided by its own words alone, in a tree as in a plain text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from decodery.core.roles import Guide, Laws
from decodery.core.tree import TokenTree
from decodery.core.values import Rows, Tensor
from decodery.laws.engine import definition_rows
from decodery.laws.specimens import TOYS, bound, claim
from decodery.model.session import Ask, Session
from decodery.model.toy import ToyModel
from decodery.model.turn import turn

PROGRAMS = 8
"""Random texts for each toy."""


def local(one: Guide) -> None:
    """A tree of rows is guided as its rows are, one by one; hidden states and companions are those of each row.

    Two texts share each pass; between passes they commit, take tokens back and fork, and the companions follow.
    """
    for toy in TOYS.values():
        guide = bound(one, toy)
        for seed in range(PROGRAMS):
            for laws, prompt, rows in _passes(guide, toy, random.Random(seed)):
                _row_by_row(guide, toy, laws, prompt, rows)


def pure(one: Guide) -> None:
    """The same rows are guided alike however often; what a pass returned stays as it was; what is forbidden stays so."""
    for toy in TOYS.values():
        guide = bound(one, toy)
        for laws, _, rows in _passes(guide, toy, random.Random(5)):
            kept = [rows.logits, *rows.hidden.values()]
            kept += [part for other in rows.companions.values() for part in (other.logits, *other.hidden.values())]
            before = [part.clone() for part in kept]
            first, again = laws(rows).logits, laws(rows).logits
            name = type(one).__name__
            claim(torch.equal(first, again), f"{name} guides the same rows differently the second time")
            claim(all(map(torch.equal, kept, before)), f"{name} changes what the pass returned beside its own logits")
            claim(not first.isnan().any(), f"{name} makes NaN")
            forbidden = replace(rows, logits=rows.logits.clone())
            forbidden.logits[:, 0] = -torch.inf
            guided = laws(forbidden).logits
            claim(torch.isneginf(guided[:, 0]).all(), f"{name} allows a token that was forbidden before it")
            claim(not guided.isnan().any(), f"{name} makes NaN where a token is forbidden")


def _row_by_row(guide: Guide, toy: ToyModel, laws: Laws, prompt: Sequence[int], rows: Rows) -> None:
    name = type(guide).__name__
    claim(guide.want.hidden <= rows.hidden.keys(), f"{name}: the pass does not hold the states it wants")
    guided = laws(rows).logits
    for row in range(len(rows)):
        words = rows.words(row)[len(prompt) :]
        alone = laws(definition_rows(toy, laws, prompt, words, guide.want)).logits[0]
        claim(
            _same(guided[row], alone),
            f"{name} after {tuple(words)}: {guided[row].tolist()} in a tree, {alone.tolist()} by itself",
        )


def _passes(guide: Guide, toy: ToyModel, rng: random.Random) -> Iterator[tuple[Laws, Sequence[int], Rows]]:
    """Passes over two texts of different prompts, with random trees."""
    arena = toy.arena()
    texts = []
    for prompt in ((0, 1, 0), (2, 1)):
        laws = Laws((guide,), greedy=False).given(prompt)
        session = Session(arena, prompt)
        session.accompany(laws.companions)
        texts.append((laws, prompt, session))
    for _ in range(4):
        asks = [Ask(session, _tree(rng, toy.vocab), guide.want) for _, _, session in texts]
        for (laws, prompt, _), rows in zip(texts, turn(asks), strict=True):
            assert isinstance(rows, Rows)
            yield laws, prompt, rows
        for place, (laws, prompt, session) in enumerate(texts):
            texts[place] = laws, prompt, _moved(session, asks[place].tree, len(prompt), rng)
    for _, _, session in texts:
        session.close()
    arena.check()
    claim(not arena.nodes, "nodes outlive the sessions")


def _moved(session: Session, tree: TokenTree, prompt: int, rng: random.Random) -> Session:
    """The text some tokens on, or back, or a fork of it."""
    if rng.random() < 0.3:
        fork = session.fork()
        session.close()
        session = fork
    if tree.live() and rng.random() < 0.7:
        session.commit([*tree.words(rng.choice(tree.live())), rng.randrange(3)])
    if rng.random() < 0.4:
        session.rewind(rng.randint(prompt, len(session.tokens)))
    return session


def _tree(rng: random.Random, vocab: int) -> TokenTree:
    tree = TokenTree()
    for node in range(rng.randrange(6)):
        tree.add(rng.randrange(vocab), rng.randint(-1, node - 1))
    return tree


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(torch.isneginf(a), torch.isneginf(b)) and torch.allclose(a, b, rtol=0, atol=1e-9)


LAWS: Sequence[Callable[[Any], None]] = (local, pure)
