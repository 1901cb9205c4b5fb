"""What a verifier promises: whatever honest tree it judges, the tokens that follow have the law p of the target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from decodery.core.chooser import Chooser, enumerate_law
from decodery.core.law import Law
from decodery.core.roles import Verifier
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Scheme, Tensor
from decodery.laws.specimens import claim
from decodery.model.toy import table

VOCAB = 3
DEAD = -torch.inf
Words = tuple[int, ...]


@dataclass(frozen=True)
class Honest:
    """How an honest tree is drawn.

    ``widths``: children of each node, level by level. ``ghosts``: a constraint forbids token 0 after the first one. ``dead``:
    nothing may follow token 1. ``zeros``: q cannot draw token 2. ``tail``: certain nodes below each drawn leaf. ``twice``: the
    certain siblings are repeated.
    """

    scheme: Scheme
    widths: tuple[int, ...]
    ghosts: bool = False
    dead: bool = False
    zeros: bool = False
    tail: int = 0
    twice: bool = False

    def __str__(self) -> str:
        marks = [name for name in ("ghosts", "dead", "zeros", "twice") if getattr(self, name)]
        widths = "x".join(map(str, self.widths))
        return " ".join([self.scheme.value, widths, *marks, *[f"tail{self.tail}"] * bool(self.tail)])


def library() -> Iterator[Honest]:
    """About sixty trees: scheme x shape, each plain and with ghosts, dead rows, zeros, certain tails and repetitions."""
    yield Honest(Scheme.CERTAIN, ())
    for scheme in Scheme:
        for widths in ((1,), (2,), (3,), (1, 1), (2, 1), (1, 2)):
            yield Honest(scheme, widths)
            yield Honest(scheme, widths, ghosts=True, zeros=scheme is not Scheme.CERTAIN)
            if len(widths) == 1 or scheme is Scheme.CERTAIN:
                yield Honest(scheme, widths, dead=True)
        yield Honest(scheme, (1,), tail=1)
        yield Honest(scheme, (2,), tail=2)
        yield Honest(scheme, (2,), tail=1, ghosts=True, dead=True)
        yield Honest(scheme, (2,), zeros=scheme is not Scheme.CERTAIN, twice=scheme is Scheme.CERTAIN)
    yield Honest(Scheme.CERTAIN, (2, 2))
    yield Honest(Scheme.CERTAIN, (3, 1), twice=True)


def _sharp(lm: Callable[[Words], Tensor]) -> Callable[[Words], Tensor]:
    return lambda words: lm(words) * 8


def _without_least(lm: Callable[[Words], Tensor]) -> Callable[[Words], Tensor]:
    def logits(words: Words) -> Tensor:
        found = lm(words).clone()
        found[found.argmin()] = DEAD
        return found

    return logits


def _tied(lm: Callable[[Words], Tensor]) -> Callable[[Words], Tensor]:
    """The likeliest two are equally likely."""

    def logits(words: Words) -> Tensor:
        found = lm(words).clone()
        found[found.topk(2).indices] = found.max()
        return found

    return logits


P, Q = table(VOCAB, 3), table(VOCAB, 5)
LAWS_OF_P: dict[str, tuple[Callable[[Words], Tensor], bool]] = {
    "nowhere zero": (P, False),
    "with zeros": (_without_least(P), False),
    "sharp": (_sharp(P), False),
    "equal to q": (Q, False),
    "greedy": (P, True),
    "greedy with ties": (_tied(P), True),
}
"""The target's logits after any words, and whether its law is one-hot."""


def law_after(honest: Honest, lm: Callable[[Words], Tensor], words: Words) -> Tensor:
    """The target's logits after these words, with what is forbidden there."""
    logits = lm(words).clone()
    if honest.ghosts and words:
        logits[0] = DEAD
    if honest.dead and words and words[-1] == 1:
        logits[:] = DEAD
    return logits


@cache
def drawn(honest: Honest) -> list[tuple[TokenTree, float]]:
    """Every tree that may be drawn, by its probability."""
    keep: dict[Any, TokenTree] = {}

    def once(rng: Chooser) -> Any:
        tree = _draw(honest, rng)
        key = tuple(zip(tree.tokens, tree.parents, strict=True))
        keep[key] = tree
        return key

    return [(keep[key], weight) for key, weight in enumerate_law(once).items()]


def _draw(honest: Honest, rng: Chooser) -> TokenTree:
    tree, level = TokenTree(scheme=honest.scheme), [ROOT]
    for width in honest.widths:
        below = []
        for node in level:
            q = Q(tree.words(node)).softmax(-1)
            if honest.zeros:
                q = q.index_fill(0, torch.tensor(2), 0.0)
                q = q / q.sum()
            for place in range(width):
                if honest.scheme is Scheme.CERTAIN:
                    token = (place + 1) % VOCAB
                    tree.add(token, node)
                    if honest.twice:
                        tree.add(token, node)
                elif float(q.sum()) > 0:
                    q = q / q.sum()
                    token = rng.pick(q)
                    tree.add(token, node, q)
                    q = q.index_fill(0, torch.tensor(token), 0.0) if honest.scheme is Scheme.DISTINCT else q
            below += [child for child in tree.children(node) if not tree.ghost[child]]
        level = below
    for node in level:
        for place in range(honest.tail):
            node = tree.add((tree.tokens[node] + place + 1) % VOCAB, node)
    for node in range(len(tree)):
        above = tree.words(node)[:-1]
        if law_after(honest, P, above)[tree.tokens[node]] == DEAD:
            tree.haunt(node)
    return tree


def rows_for(tree: TokenTree, logits: Callable[[Words], Tensor]) -> Rows:
    """The rows of a pass over the tree: ghosts have none."""
    live = tree.live()
    at = {node: row for row, node in enumerate(live, 1)}
    paths = [(), *(tree.words(node) for node in live)]
    return Rows(torch.stack([logits(path) for path in paths]), (0,), paths, [at.get(i) for i in range(len(tree))], 1)


def exact(one: Verifier) -> None:
    """The law of the tokens is p, to a billionth; a lossy verifier keeps to the tokens that p allows."""
    tried = 0
    for honest in library():
        if honest.scheme not in one.accepts:
            continue
        for name, (lm, greedy) in LAWS_OF_P.items():
            if greedy or not one.greedy_only:
                _exact(one, honest, lm, greedy, f"{type(one).__name__} on the tree {honest}, p {name}")
                tried += 1
    claim(tried, f"{type(one).__name__} accepts no scheme")


def _exact(one: Verifier, honest: Honest, lm: Callable[[Words], Tensor], greedy: bool, where: str) -> None:
    def logits(words: Words) -> Tensor:
        return law_after(honest, lm, words)

    found: dict[Words, float] = defaultdict(float)
    depth = len(honest.widths) + honest.tail + 1
    for tree, weight in drawn(honest):
        rows = rows_for(tree, logits)
        before = rows.logits.clone()

        def once(rng: Chooser, tree: TokenTree = tree, rows: Rows = rows) -> Words:
            verdict = one(tree, Law(rows.logits, greedy), rows, rng)
            _legal(tree, verdict, where)
            return tuple(verdict.tokens(tree))

        for words, chance in enumerate_law(once).items():
            dead = bool(torch.isneginf(logits(words)).all())
            claim(words or dead, f"{where}: gives no token where one may follow")
            found[words] += weight * chance
        claim(torch.equal(rows.logits, before), f"{where}: changes the logits of the pass")
    want = _chain(logits, greedy, depth)
    have = _continued(found, logits, greedy, depth)
    if one.lossless:
        apart = sum(abs(want.get(words, 0.0) - have.get(words, 0.0)) for words in {*want, *have}) / 2
        claim(apart < 1e-9, f"{where}: wrong by {apart:.1e}")
    outside = {words for words, chance in have.items() if chance > 1e-12} - want.keys()
    claim(not outside, f"{where}: emits what p does not allow, such as {min(outside, default=())}")


def _legal(tree: TokenTree, verdict: Any, where: str) -> None:
    above = ROOT
    for node in verdict.path:
        claim(tree.parents[node] == above and not tree.ghost[node], f"{where}: the path {verdict.path} is none")
        above = node
    claim(len(verdict.extra) <= 1, f"{where}: adds the tokens {verdict.extra} after the path")


def _continued(
    found: Mapping[Words, float], logits: Callable[[Words], Tensor], greedy: bool, depth: int
) -> dict[Words, float]:
    """These beginnings, continued by draws from p until all have the same length."""
    law: dict[Words, float] = defaultdict(float)

    def follow(words: Words, weight: float) -> None:
        p = _p(logits(words), greedy) if len(words) < depth else None
        if p is None:
            law[words] += weight
            return
        for token, chance in enumerate(p.tolist()):
            if chance > 0:
                follow((*words, token), weight * chance)

    for words, weight in found.items():
        follow(words, weight)
    return dict(law)


def _p(logits: Tensor, greedy: bool) -> Tensor | None:
    """The law of one row by its definition: the likeliest token, the lowest id on ties, where it is greedy."""
    if logits.max() == DEAD:
        return None
    first = min(token for token, value in enumerate(logits.tolist()) if value == float(logits.max()))
    return torch.eye(VOCAB, dtype=logits.dtype)[first] if greedy else logits.softmax(-1)


def _chain(logits: Callable[[Words], Tensor], greedy: bool, depth: int) -> dict[Words, float]:
    """The law of so many tokens by the definition."""
    return _continued({(): 1.0}, logits, greedy, depth)


LAWS: Sequence[Callable[[Any], None]] = (exact,)
