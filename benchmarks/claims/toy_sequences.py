"""RSD, SpecTr, DySpec, speculative sampling: 40,000 sampled sequences of a toy against their exact joint law.

Pearson's chi-square below its 99.9 % quantile: 26.1 at 8 degrees of freedom (two tokens of three), 54.1 at 26 (three).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import torch
from written import write

from decodery.build import build
from decodery.chooser import Seeded
from decodery.draft.dyspec import DySpec
from decodery.loop import speculate, together
from decodery.model.session import Session
from decodery.model.toy import ToyModel
from decodery.recipe import Recipe
from decodery.stop import Stop
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Chooser

RUNS, PROMPT = 40_000, (0, 1, 0)
QUANTILE = {2: 26.1, 3: 54.1}


class Reranked(DySpec):
    """Wrong: of six drawn nodes only the two of the likeliest paths are verified."""

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        tree = super().propose(session, budget, rng)
        chances: list[float] = []
        for node, parent in enumerate(tree.parents):
            first = tree.q[tree.children(parent)[0]]
            assert first is not None
            chances.append(float(first[tree.tokens[node]]) * (chances[parent] if parent != ROOT else 1.0))
        kept, at = self.empty(tree.scheme), {ROOT: ROOT}
        for node in sorted(sorted(range(len(tree)), key=chances.__getitem__)[-2:]):
            at[node] = kept.add(tree.tokens[node], at[tree.parents[node]], tree.q[node])
        return kept


@torch.inference_mode()
def sampled(draft: object, verify: str, length: int, seed: int, runs: int = RUNS, vocab: int = 3) -> dict[str, float]:
    """Chi-square of the first ``length`` tokens, and means of the first step."""
    toy, rng = ToyModel(vocab=vocab), Seeded(seed)
    built = build(Recipe.of(draft, verify, "temperature:1.0"), toy)  # type: ignore[arg-type]
    found: Counter[tuple[int, ...]] = Counter()
    accepted = nodes = 0
    for _ in range(runs):
        session, first = toy.session(PROMPT), True
        stop = Stop(max_new_tokens=length + 1 if vocab == 3 else 9)
        parts = (built.draft, built.verify, built.laws, built.constrain, rng, stop, built.want)
        for _, step in together([speculate(session, *parts)]):
            if first:
                accepted, nodes, first = accepted + len(step.verdict.path), nodes + len(step.tree), False
            if len(session.tokens) >= len(PROMPT) + length:
                break
        found[tuple(session.tokens[len(PROMPT) :][:length])] += 1
    chi = 0.0
    for words in itertools.product(range(vocab), repeat=length):
        laws = (toy.lm((*PROMPT, *words[:i])).softmax(-1)[word] for i, word in enumerate(words))
        expected = runs * math.prod(float(chance) for chance in laws)
        chi += (found[words] - expected) ** 2 / expected
    return {"chi-square": round(chi, 1), "accepted": round(accepted / runs, 4), "nodes": round(nodes / runs, 3)}


def main() -> None:
    toy = {"path": "toy"}
    cases: dict[str, tuple[object, str, int]] = {
        "rsd-s width 3, length 2": ({"rsd-s": {**toy, "width": 3, "length": 2}}, "residual", 2),
        "spectr, iid width 4, length 3": ({"iid": {**toy, "width": 4, "length": 3}}, "spectr", 3),
        "dyspec, 4 nodes, depth 2": ({"dyspec": {**toy, "nodes": 4, "length": 2}}, "residual", 2),
        "model, chain of 3": ({"model": {**toy, "length": 3}}, "residual", 3),
    }
    figures: dict[str, object] = {}
    for name, (draft, verify, length) in cases.items():
        seen = sampled(draft, verify, length, 1)["chi-square"]
        figures[name] = {"chi-square": seen, "below": QUANTILE[length], "holds": seen < QUANTILE[length]}
    wrong = sampled(Reranked("toy", nodes=6, length=2), "residual", 2, 1, RUNS // 2)["chi-square"]
    figures["dyspec reranked, 2 of 6 nodes (wrong), 20,000 runs"] = {"chi-square": wrong, "holds": wrong > 1000}
    # At depth 8 with six tokens: all nodes above a threshold against the best as many.
    level = sampled({"dyspec": {**toy, "nodes": 64, "least": 0.12}}, "residual", 1, 1, 3000, 6)
    best = [sampled({"dyspec": {**toy, "nodes": int(level["nodes"]) + i}}, "residual", 1, 1, 3000, 6) for i in (0, 1)]
    share = level["nodes"] % 1
    first = best[0]["accepted"] * (1 - share) + best[1]["accepted"] * share
    ratio = level["accepted"] / first
    figures["dyspec with a threshold / best-first, accepted at equal mean size"] = {
        **{name: level[name] for name in ("nodes", "accepted")},
        "best-first": round(first, 4),
        "ratio": round(ratio, 3),
        "holds": ratio > 0.85,
    }
    write("toy_sequences", figures)


main()
