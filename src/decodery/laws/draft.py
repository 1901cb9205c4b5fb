"""What a drafter promises: every drawn token has the law q that its node carries, whatever is known before the draw."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.errors import PartsClash
from decodery.core.roles import Built, Drafter
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.guide.top_p import TopP
from decodery.laws.specimens import TOYS, WARM, claim
from decodery.model.session import Session
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe

PROMPT = (0, 1, 0)
SIZES = (0, 1, 2, 9, 64)
BUDGETS = tuple(Budget(nodes, depth) for nodes in SIZES for depth in SIZES if (nodes == 0) == (depth == 0))
SAMPLED = {"nowhere zero": (WARM,), "with zeros": (TopP(0.7),)}


class Seen(NamedTuple):
    """One proposal: the tokens committed before it, step by step, and its tree."""

    history: tuple[tuple[int, ...], ...]
    nodes: tuple[tuple[int, int, Any], ...]
    """Token, parent, and q (rounded) of each node."""
    shape: Any
    """What a planner may look at, where the tree is settled; else None."""


class Limit(Stop):
    """An end that grants a drafter a budget of its own at each step."""

    grant = Budget(0, 0)

    def budget(self, session: Session) -> Budget:
        return self.grant


def trees(
    one: Drafter, budget: Budget, guides: Any, rng: Chooser, toy: ToyModel, tokens: int = 9
) -> Iterator[TokenTree]:
    """What a drafter proposes along one decoding."""
    built = build(Recipe.of(copy.deepcopy(one), None, guides), toy)
    stop = Limit(toy.eos, max_new_tokens=tokens)
    stop.grant = budget
    yield from (step.tree for step in steps(launch(built, toy.session((0, 1, 2, 0, 1)), rng, stop)))


def each_way(one: Drafter) -> Iterator[tuple[str, Any]]:
    """Greedily, and under sampling laws if the drafter may draft for these."""
    yield "greedy", ()
    for name, guides in SAMPLED.items():
        try:
            build(Recipe.of(copy.deepcopy(one), None, guides), ToyModel())
        except PartsClash:
            continue
        yield name, guides


def legal(one: Drafter) -> None:
    """Trees keep to the budget and to the schemes declared; q sums to one and can give its token; settled or not is told."""
    for way, guides in each_way(one):
        for toy in TOYS.values():
            for budget in BUDGETS:
                for tree in trees(one, budget, guides, Seeded(3), toy):
                    _legal(one, tree, budget, f"{way}, {budget}")


def _legal(one: Drafter, tree: TokenTree, budget: Budget, where: str) -> None:
    name = type(one).__name__
    claim(len(tree) <= budget.nodes, f"{name} proposes {len(tree)} nodes ({where})")
    claim(
        max(tree.depths, default=0) <= budget.depth, f"{name} proposes {max(tree.depths, default=0)} levels ({where})"
    )
    claim(not len(tree) or tree.scheme in one.emits, f"{name} emits {tree.scheme}, which it does not declare ({where})")
    for node, q in enumerate(tree.q):
        certain = tree.scheme is Scheme.CERTAIN
        claim((q is None) == certain, f"{name}: node {node} of a tree of scheme {tree.scheme} carries q={q} ({where})")
        if q is not None:
            claim(abs(float(q.sum()) - 1) < 1e-6, f"{name}: q of node {node} sums to {float(q.sum())} ({where})")
            claim(float(q[tree.tokens[node]]) > 0, f"{name}: node {node} cannot be drawn from its q ({where})")
    for node in range(-1, len(tree)):
        tokens = [tree.tokens[child] for child in tree.children(node)]
        if tree.scheme is Scheme.DISTINCT:
            claim(len({*tokens}) == len(tokens), f"{name}: siblings that should differ are {tokens} ({where})")


def repeats(one: Drafter) -> None:
    """The same choices give the same trees, by whatever object of these parameters."""
    for way, guides in each_way(one):
        for toy in TOYS.values():
            runs = [[*trees(one, Budget(9, 4), guides, Seeded(5), toy)] for _ in range(2)]
            first, again = ([(t.tokens, t.parents, t.ghost) for t in run] for run in runs)
            claim(first == again, f"{type(one).__name__} proposes {first}, and then {again} ({way})")


def honest(one: Drafter) -> None:
    """Along every run: given the committed text, what stands before a node in its tree, and its q, the token's law is q."""
    for way, seen in _runs(one):
        laws: dict[Any, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for proposal, weight in seen.items():
            for i, (token, parent, q) in enumerate(proposal.nodes):
                if q is not None:
                    laws[proposal.history, proposal.nodes[:i], parent, q][token] += weight
        for (history, before, _, q), counts in laws.items():
            mass = sum(counts.values())
            for token, chance in enumerate(q):
                claim(
                    abs(counts[token] / mass - chance) < 1e-8,
                    f"{type(one).__name__} says that token {token} was drawn with probability {chance:.6f}, but it is "
                    f"{counts[token] / mass:.6f} after {history} and nodes {[(t, p) for t, p, _ in before]} ({way})",
                )


def settled(one: Drafter) -> None:
    """Trees that say they are settled have one shape for one committed text, hints included."""
    for way, seen in _runs(one):
        shapes: dict[Any, set[Any]] = defaultdict(set)
        for proposal in seen:
            shapes[proposal.history].add(proposal.shape)
        for history, found in shapes.items():
            claim(
                len(found) == 1 or found == {None},
                f"{type(one).__name__} calls trees settled whose shapes {found} differ after the same text {history} ({way})",
            )


def _runs(one: Drafter) -> Iterator[tuple[str, dict[Seen, float]]]:
    """For each toy and sampling law: every proposal that may be made, by its probability."""
    if one.emits <= {Scheme.CERTAIN}:
        return
    for way, guides in each_way(one):
        for name, toy in TOYS.items():
            if way != "greedy":
                yield f"{way}, {name}", _proposals(build(Recipe.of(one, None, guides), toy), toy)


def _proposals(built: Built, toy: ToyModel) -> dict[Seen, float]:
    def once(rng: Chooser) -> tuple[Seen, ...]:
        session = toy.session(PROMPT)
        history: list[tuple[int, ...]] = [PROMPT]
        seen: list[Seen] = []
        own = replace(built, draft=copy.deepcopy(built.draft))
        program = launch(own, session, rng, Stop(toy.eos, max_new_tokens=3))
        for step in steps(program):
            tree = step.tree
            q = [None if law is None else tuple(round(chance, 10) for chance in law.tolist()) for law in tree.q]
            nodes = tuple(zip(tree.tokens, tree.parents, q, strict=True))
            shape = (tuple(tree.parents), tuple(tree.kinds)) if tree.settled else None
            seen.append(Seen(tuple(history), nodes, shape))
            history.append(tuple(step.tokens))
            if len(session.tokens) >= len(PROMPT) + 2:
                break
        return tuple(seen)

    found: dict[Seen, float] = defaultdict(float)
    for seen, weight in enumerate_law(once).items():
        for proposal in seen:
            found[proposal] += weight
    return found


LAWS: tuple[Callable[[Any], None], ...] = (legal, repeats, honest, settled)
