"""ASAp on SmolLM2: an enumerable grammar, and shared GAD tasks (bit vectors), against masks alone.

The divergence of a sampler q from the law given the grammar is E_q[log q(y) - log p(y)] + log P(grammar). The last term is the
same for both samplers and at most log c(root), which is what is told here beside the means.
"""

from __future__ import annotations

import collections
import json
import math
import re
import statistics
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import llguidance
import torch
from harness import DATA, record

import decodery
from decodery.constrain.lib.matcher import MatcherConstraint
from decodery.core.chooser import Seeded
from decodery.core.stop import Stop
from decodery.model.turn import forward
from decodery.run.build import build
from decodery.run.crew import steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe
from decodery.search.lib.future import Aligned, Future

TASKS, SAMPLES, WINDOW = (int(sys.argv[i]) if len(sys.argv) > i else usual for i, usual in enumerate((4, 80, 20), 1))
HEAD = "(define-fun inv ((s (BitVec 4)) (t (BitVec 4))) (BitVec 4) "


@dataclass
class Lark(MatcherConstraint):
    """A grammar in llguidance's Lark."""

    text: str

    def grammar(self) -> str:
        return str(llguidance.LLMatcher.grammar_from_lark(self.text))


def lark_of(ebnf: str) -> str:
    """A task's grammar without the fixed head of its root, which stands in the prompt."""
    lines = []
    for line in filter(None, ebnf.splitlines()):
        name, _, body = line.partition("::=")
        body = body.replace(json.dumps(HEAD), "")
        body = re.sub(r'"(?:[^"\\]|\\.)*"|\w+', lambda m: m[0] if m[0].startswith('"') else rule(m[0]), body)
        lines.append(f"{rule(name.strip())}: {body.strip()}")
    return "\n".join(lines)


def rule(name: str) -> str:
    """A rule's name as Lark wants it."""
    return {"root": "start", "Start": "main"}.get(name, name.lower())


def samples(
    model: decodery.Model, prompt: str, grammar: MatcherConstraint, learns: bool
) -> tuple[list[float], list[float], int]:
    """log q - log p of each sample, log c(root) after it, and how many came to an end."""
    built = build(Recipe.of("none", None, "temperature:1.0", grammar), model)
    future, gaps, roots, ended = Future(), [], [], 0
    ends = model.eos | {model.pieces("\n")[0], model.pieces("\n\n")[0]}  # the worked examples end with a line's end
    with closing(model.session(model.tokens(prompt))) as session:
        forward(session)
        for seed in range(SAMPLES):
            with closing(session.fork()) as fork:
                known = future if learns else Future()
                aligned = replace(built, laws=Aligned(built.laws.guides, False, {}, future=known))
                stop, tokens, q = Stop(ends, max_new_tokens=48), list[int](), 0.0
                for step in steps(launch(aligned, fork, Seeded(seed), stop)):
                    tokens += step.tokens
                    q += sum(float(step.p.logits[0].log_softmax(-1)[token]) for token in step.tokens)
                    known.learn(step, tokens)
                if stop.reason == "stop":
                    ended += 1
                    gaps.append(q - known.log_p(tokens))
                roots.append(math.log(max(known.root.c, 1e-300)))
    return gaps, roots, ended


def windows(values: list[float]) -> list[float]:
    """Means of stretches."""
    return [round(statistics.mean(values[i : i + WINDOW]), 3) for i in range(0, len(values) - WINDOW + 1, WINDOW)]


def answers(model: decodery.Model) -> dict[str, Any]:
    """ "yes", "no" or "maybe": the law of all their tokenisations is known from the exact search."""
    options = {"draft": "none", "constrain": {"choice": {"options": ["yes", "no", "maybe"]}}, "max_new_tokens": 8}
    prompt, n, burn = "Is the earth flat? Answer with one word: ", 4 * SAMPLES, SAMPLES
    exact = decodery.decode(model, prompt, search="exact:n=40,most=2000", **options)
    weights = {one.tokens: math.exp(one.score) for one in exact.candidates}
    whole = sum(weights.values())
    found = decodery.decode(model, prompt, search=f"asap:n={n}", guide="temperature:1.0", seed=5, **options)
    masked = decodery.decode(model, prompt, guide="temperature:1.0", seed=6, n=n - burn, **options)
    # Candidates are ordered by score, so frequencies are counted over all samples; the first few are the biased ones.
    told = {
        "asap": collections.Counter(one.tokens for one in found.candidates),
        "masks": collections.Counter(tuple(one.tokens) for one in masked),
    }
    report: dict[str, Any] = {"P(grammar)": whole, "exp(log_evidence)": math.exp(found.log_evidence or 0.0)}
    for name, counts in told.items():
        total = sum(counts.values())
        report[f"total variation, {name}, {total} samples"] = round(
            sum(abs(counts[y] / total - weights.get(y, 0.0) / whole) for y in {*weights, *counts}) / 2, 4
        )
    report["largest error of a candidate's log-probability"] = round(
        max(
            abs(one.score - math.log(weights[one.tokens] / whole)) for one in found.candidates if one.tokens in weights
        ),
        6,
    )
    return report


def main() -> None:
    model = decodery.load("smollm2")
    first = answers(model)
    print(first, flush=True)
    rows = [json.loads(line) for line in (DATA / "gad" / "bv4.jsonl").read_text().splitlines()]
    rows = sorted((row for row in rows if row["prompt"]), key=lambda row: len(row["prompt"]))[:TASKS]
    tasks = {}
    for row in rows:
        grammar, prompt = Lark(lark_of(row["grammar_ebnf"])), row["prompt"].rstrip() + "\n" + HEAD
        told = {}
        for name, learns in (("asap", True), ("masks", False)):
            gaps, roots, ended = samples(model, prompt, grammar, learns)
            told[name] = {
                f"mean log q - log p, by {WINDOW} samples": windows(gaps),
                "log c(root) at the end": round(roots[-1], 3),
                "ended": ended,
            }
            print(row["task"], name, told[name], flush=True)
        tasks[row["task"]] = told
    record("asap-grammar-aligned-decoding", {"yes, no, maybe": first, f"GAD bv4, {SAMPLES} samples": tasks})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
