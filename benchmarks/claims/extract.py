"""Exact extraction against greedy decoding on SQuAD, with SmolLM2: exact match, F1, probabilities and passes."""

from __future__ import annotations

import collections
import json
import re
import statistics
import string
import sys

import torch
from harness import DATA, record

import decodery
from decodery.core.tree import TokenTree
from decodery.model.turn import forward

QUESTIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 40
LONGEST = 12


def normal(text: str) -> list[str]:
    """SQuAD's own normalisation: lower case, no punctuation, no articles."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(found: str, right: str) -> float:
    """The harmonic mean of precision and recall of words."""
    a, b = normal(found), normal(right)
    same = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else float(a == b)


def main() -> None:
    model = decodery.load("smollm2")
    newline = model.pieces("\n")[0]
    rows = [json.loads(line) for line in (DATA / "squad" / "squad_train_sample.jsonl").read_text().splitlines()]
    rows = [row for row in rows if len(row["context"]) < 600][:QUESTIONS]
    results: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    better, spans, inside, nodes, passes, candidates, seconds = [], 0, 0, [], [], [], []
    for row in rows:
        passage = " " + row["context"].strip()
        prompt = f"Text:{passage}\nQuestion: {row['question'].strip()}\nAnswer:"
        options = {"draft": "none", "stop": newline, "max_new_tokens": 24, "seed": 1}
        span = {"span": {"text": passage, "longest": LONGEST}}
        found = {
            "greedy": decodery.decode(model, prompt, **options),
            "greedy, constrained to spans": decodery.decode(model, prompt, constrain=span, **options),
            "exact": decodery.decode(model, prompt, constrain=span, search="exact:width=16,most=20000", **options),
        }
        for name, output in found.items():
            text = output.text.strip()
            results[name].append(
                (
                    max(float(normal(text) == normal(right)) for right in row["answers"]),
                    max(f1(text, right) for right in row["answers"]),
                )
            )
        exact, tokens = found["exact"], model.pieces(passage)
        inside += exact.text.strip() in row["context"]
        nodes.append(exact.stats.calls["positions"])
        passes.append(exact.stats.calls["target"])
        seconds.append(exact.stats.seconds)
        candidates.append(sum(min(LONGEST, len(tokens) - i) for i in range(len(tokens))))
        for name in ("greedy", "greedy, constrained to spans"):
            answer = found[name].tokens
            body = answer[:-1] if answer and answer[-1] in (newline, *model.eos) else answer
            is_span = (
                any(tokens[i : i + len(body)] == body for i in range(len(tokens)))
                and 0 < len(body) <= LONGEST
                and found[name].text.strip()
            )
            if name == "greedy":
                spans += bool(is_span)
            if is_span and body != answer:
                better.append(exact.candidates[0].score - chance(model, prompt, answer))
        print(
            f"{row['question'][:50]!r}: {[output.text.strip()[:30] for output in found.values()]} {row['answers'][0][:30]!r}",
            flush=True,
        )
    record(
        "exact-extract",
        {
            "questions": len(rows),
            **{
                name: {
                    "exact match": round(100 * statistics.mean(em for em, _ in told), 1),
                    "F1": round(100 * statistics.mean(score for _, score in told), 1),
                }
                for name, told in results.items()
            },
            "greedy answers that are spans": spans,
            "log p(exact) - log p(greedy span)": {
                "compared": len(better),
                "least": round(min(better), 6),
                "mean": round(statistics.mean(better), 3),
                "strictly better": sum(one > 1e-3 for one in better),
            },
            "answers inside the passage": inside,
            "cost": {
                "spans": round(statistics.mean(candidates)),
                "tokens computed, prompt included": round(statistics.mean(nodes)),
                "passes": round(statistics.mean(passes), 1),
                "seconds": round(statistics.mean(seconds), 2),
            },
        },
    )


def chance(model: decodery.Model, prompt: str, answer: list[int]) -> float:
    """The log-probability of an answer after a prompt (nats), token by token."""
    session = model.session(model.tokens(prompt))
    try:
        logs = forward(session, TokenTree.chain(answer[:-1])).logits.double().log_softmax(-1)
        return float(sum(logs[i, token] for i, token in enumerate(answer)))
    finally:
        session.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
