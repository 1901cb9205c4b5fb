"""SpecDec++ on SmolLM2 at temperature 1: how well entropy foretells acceptance, and what stopping by it saves.

At places of sampled answers the target drafts ten tokens through 24 of its 30 layers; one pass judges them. Of a chain with
acceptances a1, a2, ... the k-th stands with chance a1 ... ak: so what any rule drafts, wastes and costs follows without a
further draw. Costs are modelled: a target call is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from harness import answered, record, spec_bench

import decodery
from decodery.core.chooser import Seeded
from decodery.core.roles import Laws
from decodery.core.values import Budget
from decodery.draft.specdec_plus_plus import EDGES, SpecDecPlusPlus
from decodery.guide.temperature import Temperature
from decodery.model.turn import forward

TEN, PLACES, APART, HALF = 10, 8, 3, 8
LAYERS = tuple(i for i in range(30) if not 12 <= i < 18)


class Draft(NamedTuple):
    """A token's chance to be accepted; the two laws' overlap, which is its mean; the band of the draft's entropy."""

    chance: float
    overlap: float
    band: int


def drafted(model: decodery.Model, prompt: list[int], seed: int) -> list[list[Draft]]:
    asked = {"guide": ["temperature:1"], "seed": seed, "max_new_tokens": PLACES * APART, "ignore_eos": True}
    answer = decodery.decode(model, prompt, **asked)  # type: ignore[call-overload]
    draft = SpecDecPlusPlus(min=TEN, max=TEN, layers=LAYERS).bind(model)
    session, laws, rng = model.session(prompt), Laws((Temperature(1.0),), greedy=False), Seeded(seed)
    forward(session)
    draft.begin(session, laws)
    found = []
    for at in range(0, PLACES * APART, APART):
        tree = answered(draft.proposing(session, Budget(64, 64), rng))
        law, one = laws(forward(session, tree)), []
        for node, (token, q) in enumerate(zip(tree.tokens, tree.q, strict=True)):  # a chain: row n stands before node n
            p = law.row(node)
            assert p is not None and q is not None  # noqa: PT018
            chance, overlap = min(1.0, float(p[token] / q[token])), float(torch.minimum(p, q).sum())
            one.append(Draft(chance, overlap, draft._bands[node]))
        found.append(one)
        session.commit(answer.tokens[at : at + APART])
    return found


def outcome(test: Sequence[list[Draft]], length: Callable[[list[Draft]], int]) -> tuple[float, float, float]:
    """Target calls, drafts and wasted drafts, each for one token of output."""
    drafts = stood = 0.0
    for one in test:
        drafts += (n := length(one))
        stood += sum(math.prod(d.chance for d in one[: i + 1]) for i in range(n))
    tokens = stood + len(test)
    return len(test) / tokens, drafts / tokens, (drafts - stood) / tokens


def until(judge: Callable[[Draft], float], threshold: float) -> Callable[[list[Draft]], int]:
    """The drafter's rule with ``min=1``."""

    def length(one: list[Draft]) -> int:
        stands = [math.prod(map(judge, one[: n + 1])) for n in range(len(one))]
        return next((n for n, chance in enumerate(stands, 1) if 1 - chance > threshold), len(one))

    return length


def main() -> None:
    model = decodery.load("smollm2", dtype="float32")
    found = [drafted(model, prompt, seed) for seed, prompt in enumerate(spec_bench(model)[: 2 * HALF])]
    train, test = list(chain(*chain(*found[:HALF]))), list(chain(*found[HALF:]))
    flat = list(chain(*test))
    bands = [[d.overlap for d in train if d.band == band] for band in range(len(EDGES) + 1)]
    table = [(0.8 * 4 + sum(seen)) / (4 + len(seen)) for seen in bands]  # as the drafter keeps it
    constant = sum(d.chance for d in train) / len(train)

    def kl(predict: Callable[[Draft], float]) -> float:
        both = [pair for d in flat for pair in ((d.chance, predict(d)), (1 - d.chance, 1 - predict(d)))]
        return round(sum(x * math.log(x / y) for x, y in both if x > 0) / len(flat), 4)

    pairs = [(table[a.band], table[b.band], (1 - a.chance) * b.chance) for a in flat for b in flat]
    auc = sum(w * ((a < b) + (a == b) / 2) for a, b, w in pairs) / sum(w for *_, w in pairs)
    figures: dict[str, object] = {
        "drafts judged, to learn and held out": [len(train), len(flat)],
        "mean acceptance": round(sum(d.chance for d in flat) / len(flat), 3),
        "held-out KL, by entropy and constant": [kl(lambda d: table[d.band]), kl(lambda _: constant)],
        "AUC for refusal": round(auc, 3),
    }
    fixed = {k: outcome(test, lambda _, k=k: k) for k in range(1, TEN + 1)}  # type: ignore[misc]
    rules = {"by entropy": lambda d: table[d.band], "by the true chance (oracle)": lambda d: d.chance}
    swept = {name: {h / 50: outcome(test, until(judge, h / 50)) for h in range(51)} for name, judge in rules.items()}
    for cost in (0.05, 0.1, 0.2):
        time = {k: calls + cost * drafts for k, (calls, drafts, _) in fixed.items()}
        best = min(time, key=time.__getitem__)
        rows = figures[f"a draft costs {cost}"] = {"best fixed length": best, "wasted": round(fixed[best][2], 3)}
        for name, all_of in swept.items():
            h = min(all_of, key=lambda h: all_of[h][0] + cost * all_of[h][1])
            least = min((waste for calls, _, waste in all_of.values() if calls <= fixed[best][0]), default=math.nan)
            rows[f"{name}: best threshold"] = h
            rows[f"{name}: time / that of the best fixed"] = round((all_of[h][0] + cost * all_of[h][1]) / time[best], 4)
            rows[f"{name}: wasted, at no more target calls"] = round(least, 3)
    record("specdec_plus_plus", figures)


main()
