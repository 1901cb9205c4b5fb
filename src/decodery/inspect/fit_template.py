"""Fitting the tree of Token Recycling to a model and its prompts, as Medusa and Sequoia fit theirs.

A run with a wide template shows how often each rank path was on the accepted path. What a forward then accepts on average
is the sum, over the nodes of a tree, of the probability that the node is accepted. A child's probability never exceeds its
parent's, so the N likeliest paths form a tree, and no tree of N nodes promises more: the greedy choice is the best one.

The promise is of the wide run's memory. A narrower tree computes fewer rows, so it learns less and keeps somewhat less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decodery.core.errors import BadTemplate
from decodery.core.step import Step
from decodery.core.tree import ROOT
from decodery.draft.lib.template import RankPath, Template, template_of, writable, write
from decodery.model.model import Model
from decodery.run.api import stream
from decodery.run.recipe import Recipe

K = 8
"""What ``recycling`` keeps after each token unless told otherwise."""


@dataclass
class Counts:
    """What became of each rank path.

    Attributes:
        judged: how often its children were judged, which takes that it was accepted; ``()`` counts the steps.
        offered: how often it was guessed where its parent was accepted.
        accepted: how often it was on the accepted path.
    """

    judged: Counter[RankPath] = field(default_factory=Counter)
    offered: Counter[RankPath] = field(default_factory=Counter)
    accepted: Counter[RankPath] = field(default_factory=Counter)

    def add(self, step: Step) -> None:
        """Book a step of a drafter whose siblings come by rank, none left out between them."""
        node: int = ROOT
        path: RankPath = ()
        # An answer that ends here cuts the verdict, and what lies below the cut was not judged.
        for following in (*step.verdict.path, *([ROOT] if step.verdict.extra else [])):
            siblings = step.tree.children(node)
            self.judged[path] += 1
            self.offered.update((*path, rank) for rank in range(len(siblings)))
            if following != ROOT:
                node, path = following, (*path, siblings.index(following))
                self.accepted[path] += 1

    def rates(self, paths: Iterable[RankPath]) -> dict[RankPath, float]:
        """How often each was accepted where its parent was; one that was not always guessed counts as refused then."""
        return {path: self.accepted[path] / max(self.judged[path[:-1]], 1) for path in paths}


def chances(rates: Mapping[RankPath, float], template: Template) -> list[float]:
    """The probability that each node is accepted: the product of the rates along its path."""
    found: dict[RankPath, float] = {(): 1.0}
    for path in template:
        found[path] = found[path[:-1]] * rates.get(path, 0.0)
    return [found[path] for path in template]


def best(rates: Mapping[RankPath, float], nodes: int) -> Template:
    """The tree of so many nodes that promises most accepted tokens, likeliest first; ``rates`` has parents first."""
    likely = dict(zip(rates, chances(rates, tuple(rates)), strict=True))
    # Of equals the shallow and the lower ranks go first, so a parent is before its children whatever their chances are.
    return tuple(sorted(rates, key=lambda path: (-likely[path], len(path) + sum(path), path))[:nodes])


def fit(
    model: Model,
    prompts: Sequence[Any],
    path: Path,
    nodes: int = 16,
    widest: str = "published",
    tokens: int = 64,
    source: str = "",
) -> dict[str, Any]:
    """Answer ``prompts`` greedily with the template ``widest``, write the best tree of ``nodes`` nodes; returns the notes.

    ``tokens``: of each answer. ``source``: where the prompts are from, for the notes. Raises ``BadTemplate`` where there
    are not so many nodes to choose from, or where the file cannot be written.
    """
    writable(path)
    try:
        wide = template_of(widest, K)
    except ValueError as error:
        raise BadTemplate(f"widest: {error}") from error
    if not 1 <= nodes <= len(wide):
        raise BadTemplate(f"the template {widest} has {len(wide)} nodes to choose from, so --nodes cannot be {nodes}")
    if any(path[-1] and (*path[:-1], path[-1] - 1) not in wide for path in wide):
        raise BadTemplate(f"the template {widest} leaves ranks out, so the ranks of what was accepted cannot be told")
    counts, recipe, seen = Counts(), Recipe.of({"recycling": {"template": widest, "k": K}}), 0
    for prompt in prompts:
        # Where few tokens are left, deep nodes are not guessed: so a few more are allowed than are looked at.
        answer = stream(model, prompt, recipe=recipe, max_new_tokens=tokens + max(map(len, wide)))
        for piece in answer:
            if piece.step is not None:
                counts.add(piece.step)
            if len(answer.output.tokens) >= tokens:
                break
        seen += len(answer.output.tokens)
    rates = counts.rates(wide)
    chosen = best(rates, nodes)
    notes = {
        "model": model.name,
        "source": source,
        "prompts": len(prompts),
        "steps": counts.judged[()],
        "tokens": seen,
        "widest": widest,
        "nodes": nodes,
        "tokens_per_forward": round(1 + sum(chances(rates, chosen)), 4),
        "counts": [[path, counts.offered[path], counts.accepted[path]] for path in wide],
    }
    write(path, chosen, notes)
    return notes
