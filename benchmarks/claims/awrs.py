"""AWRS on SmolLM2: how many tokens a constraint is asked about, against a mask over the vocabulary, and whether weights agree.

The patterns are those of the shared set that llguidance can take. Each is used as a black box: only ``advance`` is called.
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from contextlib import closing
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


def weights(model: decodery.Model, draws: int = 100) -> None:
    """At the first token of ten patterns: mean weights against the allowed mass, which the whole mask tells.

    Weights have a long tail, so patterns are pooled: a single pattern's error of the mean says little.
    """
    kinds = {"awrs": lambda *given: awrs(*given), "four accepted draws": lambda *given: awrs(*given, 4)}
    means: dict[str, list[float]] = {name: [] for name in kinds}
    variances: dict[str, list[float]] = {name: [] for name in kinds}
    masses: list[float] = []
    for pattern in patterns():
        if len(masses) == 10 or (built := taken(model, pattern)) is None:
            continue
        with closing(model.session(model.tokens(asked(pattern)))) as session:
            p = built.laws(forward(session)).row(0).double()
        p /= p.sum()
        state = built.constrain.start(())
        (mask,) = masks(built.constrain, [state], model.eos)
        if (mass := float(p[mask].sum())) < 1e-3:  # nearly the whole vocabulary would be drawn, again and again
            continue
        masses.append(mass)
        for name, kind in kinds.items():
            found = [math.exp(kind(p, lambda t, m=mask: bool(m[t]), Seeded(seed)).log_weight) for seed in range(draws)]
            means[name].append(statistics.mean(found))
            variances[name].append(statistics.variance(found) / draws)
    told: dict[str, Any] = {"patterns": len(masses), "draws": draws, "sum of the allowed masses": round(sum(masses), 4)}
    for name in kinds:
        told[f"sum of the mean weights, {name}"] = round(sum(means[name]), 4)
        told[f"its standard error, {name}"] = round(math.sqrt(sum(variances[name])), 4)
    record("awrs-weights", told)


def main() -> None:
    model = decodery.load("smollm2")
    if sys.argv[1:] == ["weights"]:
        weights(model)
        return
    checks: list[float] = []
    answers = dead = regular = 0
    slow: list[float] = []
    for pattern in patterns():
        if taken(model, pattern) is None:
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
