"""AWRS on SmolLM2: how many tokens a constraint is asked about, against a mask over the vocabulary, and whether weights agree.

The patterns are those of the shared set that llguidance can take. Each is used as a black box: only ``advance`` is called.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter
from typing import Any

import torch
from harness import DATA, record

import decodery
from decodery.constrain.check import Check
from decodery.core.chooser import Seeded
from decodery.core.errors import DecoderyError
from decodery.core.walk import masks
from decodery.model.turn import forward
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.search.lib.awrs import awrs
from decodery.search.lib.particles import Asked

TOKENS, PARTICLES = 16, 4


def patterns() -> list[str]:
    """The regular expressions of the set."""
    with (DATA / "awrs" / "patterns.csv").open() as file:
        return [row["regex"] for row in csv.DictReader(file)]


def taken(model: decodery.Model, pattern: str) -> Any:
    """The recipe's parts for a pattern; None where it is no regular one."""
    try:
        return build(Recipe.of("none", None, "temperature:1.0", {"regex": {"pattern": pattern.strip("^$")}}), model)
    except DecoderyError:
        return None


def asked(pattern: str) -> list[dict[str, str]]:
    """A conversation whose answer is a string of the pattern, with two examples: a model that ends its answers by itself."""
    told = "Answer with one string that matches the regular expression, and nothing else: {}"
    examples = (("^[A-Z]{3}[0-9]{2}$", "QTR48"), ("^(cat|dog)s?$", "dogs"))
    turns = [(told.format(regex), text) for regex, text in examples]
    conversation = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return [*conversation, {"role": "user", "content": told.format(pattern)}]


def weights(model: decodery.Model, built: Any, prompt: Any, draws: int = 100) -> float:
    """At the first token: by how many standard errors the mean weight is off the allowed mass, from the whole mask."""
    session = model.session(model.tokens(prompt))
    try:
        p = built.laws(forward(session)).row(0).double()
    finally:
        session.close()
    state = built.constrain.start(())
    (mask,) = masks(built.constrain, [state], model.eos)
    mass = float(p[mask].sum() / p.sum())
    found = []
    for seed in range(draws):
        draw = awrs(p / p.sum(), Asked(built.constrain, state, model.eos, Counter()), Seeded(seed))
        found.append(math.exp(draw.log_weight))
    error = statistics.stdev(found) / math.sqrt(draws)
    return (statistics.mean(found) - mass) / error if error > 1e-12 else (statistics.mean(found) - mass) * 1e6


def main() -> None:
    model = decodery.load("smollm2")
    checks: list[float] = []
    answers = dead = regular = 0
    scores: list[float] = []
    slow: list[float] = []
    for pattern in patterns():
        if (built := taken(model, pattern)) is None:
            continue
        regular += 1
        if regular > 40:
            continue
        prompt = asked(pattern)
        output = decodery.decode(
            model,
            prompt,
            draft="none",
            guide="temperature:1.0",
            constrain={"regex": {"pattern": pattern.strip("^$")}},
            search=f"smc:particles={PARTICLES}",
            max_new_tokens=TOKENS,
            seed=1,
        )
        steps = output.stats.forwards
        mean = output.stats.calls["checks"] / (PARTICLES * steps)
        checks.append(mean)
        slow.append(output.stats.seconds)
        answers += bool(output.candidates)
        dead += output.finish_reason == "dead_end"
        if len(scores) < 20:
            scores.append(weights(model, built, prompt))
        print(
            f"{mean:8.1f} checks a token, {output.stats.seconds:5.1f} s  {pattern[:50]!r} -> {output.text[:40]!r}",
            flush=True,
        )
    digits = decodery.decode(
        model,
        "The first digits of pi are 3.",
        draft="none",
        guide="temperature:1.0",
        constrain=Check(lambda text: text.isdigit() or not text),
        search="smc:particles=1",
        max_new_tokens=100,
        ignore_eos=True,
        seed=1,
    )
    vocab = model.vocab
    record(
        "awrs",
        {
            "patterns": {
                "all": len(patterns()),
                "regular": regular,
                "run": len(checks),
                "with an answer": answers,
                "dead ends": dead,
            },
            "checks a token": {
                "mean": round(statistics.mean(checks), 1),
                "median": round(statistics.median(checks), 1),
                "worst": round(max(checks), 1),
                "of a mask": vocab,
                "ratio of the means": round(vocab / statistics.mean(checks), 1),
            },
            "seconds an answer": round(statistics.mean(slow), 2),
            "weights at the first token": {
                "patterns": len(scores),
                "mean z": round(statistics.mean(scores), 2),
                "worst |z|": round(max(map(abs, scores)), 2),
            },
            "digits only, 100 tokens": {
                "tokens": len(digits.tokens),
                "checks a token": round(digits.stats.calls["checks"] / max(len(digits.tokens), 1), 1),
                "text": digits.text,
            },
        },
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
