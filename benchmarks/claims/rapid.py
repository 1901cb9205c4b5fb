"""RAPID on SmolLM2: a fact in one of 20 chunks of a novel, and a question about it.

Recall@k of the retrieval; how often drafts are accepted, sum(min(q, p_hat)) over the target's own answer, where the draft
model reads the right chunk, another one, or what was retrieved; and real runs. Run from the repository root.
"""

from __future__ import annotations

import random
from time import process_time
from typing import Any

import torch
from figures import DATA, record

import decodery
from decodery.draft.rapid import RapidDraft, rank
from decodery.law import Law
from decodery.tree import TokenTree
from decodery.verify.rapid import RapidVerify, tilt

CHUNKS, CHUNK, NEEDLES, TASKS, ANSWER = 20, 48, 100, 4, 6
ETAS = (0.0, 1.0, 5.0, 10.0, 20.0, 50.0)
PLACES = ["harbour", "library", "castle", "garden", "museum", "hospital", "station", "theatre", "prison", "bakery"]
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "purple", "orange", "silver", "golden"]
ANIMALS = ["tiger", "eagle", "horse", "rabbit", "dolphin", "monkey", "spider", "turtle", "lion", "wolf"]


def task(rng: random.Random) -> tuple[list[list[int]], int, list[int], list[int]]:
    """Chunks of the text, which of them holds the fact, the question with the beginning of its answer, and it in other words."""
    place = rng.choice(PLACES)
    start = rng.randrange(len(novel) - CHUNKS * CHUNK)
    chunks = [novel[start + i * CHUNK :][:CHUNK] for i in range(CHUNKS)]
    right = rng.randrange(CHUNKS)
    fact = model.encode(f" The secret password of the {place} is {rng.choice(COLOURS)} {rng.choice(ANIMALS)}.")
    chunks[right] = [*chunks[right][: CHUNK - len(fact)], *fact]
    ask = f"\n\nQuestion: What is the secret password of the {place}?\nAnswer: The secret password of the {place} is"
    return (
        chunks,
        right,
        model.encode(ask),
        model.encode(f"\n\nQuestion: What must I say at the {place} to get in?\nAnswer:"),
    )


def flat(chunks: list[list[int]]) -> list[int]:
    return [token for chunk in chunks for token in chunk]


def laws(prompt: list[int], answer: list[int]) -> list[torch.Tensor]:
    """The law of each token of an answer after a prompt."""
    rows = model.session(prompt).forward(TokenTree.chain(answer[:-1]))
    return list(rows.logits.softmax(-1))


def acceptance(ps: list[torch.Tensor], qs: list[torch.Tensor], eta: float) -> float:
    return sum(float(torch.minimum(q, tilt(p, q, eta, 0.1)).sum()) for p, q in zip(ps, qs, strict=True)) / len(ps)


model = decodery.load("smollm2", dtype="float32")
novel = model.encode((DATA / "longtext" / "crime_and_punishment.txt").read_text()[20_000:220_000])
rng = random.Random(0)
places: list[list[int]] = [[], []]
for _ in range(NEEDLES):
    chunks, right, *asks = task(rng)
    for found, ask in zip(places, asks, strict=True):
        found.append(rank(chunks, ask).index(right))
claims: dict[str, Any] = {
    f"recall, {name}": {f"@{k}": sum(place < k for place in found) / NEEDLES for k in (1, 2, 4, 8)}
    for name, found in zip(("asked in its words", "in others"), places, strict=True)
}

accepted: dict[str, dict[float, list[float]]] = {}
runs: dict[str, list[float]] = {}
wins = said = 0
sampled: dict[str, Any] = {"guide": "temperature:1.0", "seed": 1, "max_new_tokens": 16, "ignore_eos": True}
for _ in range(TASKS):
    chunks, right, ask, _ = task(rng)
    other = rng.choice([i for i in range(CHUNKS) if i != right])
    prompt = [*flat(chunks), *ask]
    session = model.session(prompt)
    decodery.decode(model, prompt, session=session, max_new_tokens=1)  # the prompt is read once, for all runs
    answer = decodery.decode(model, prompt, session=session, max_new_tokens=ANSWER, ignore_eos=True).tokens
    session.restart(prompt)
    rows = session.forward(TokenTree.chain(answer[:-1]))
    ps = [Law(rows.logits, greedy=False).row(i) for i in range(ANSWER)]
    said += model.text.decode(answer).split()[:2] == model.text.decode(chunks[right]).rstrip(".").split()[-2:]
    context = {
        "right chunk": chunks[right],
        "random chunk": chunks[other],
        "two retrieved": flat([chunks[i] for i in sorted(rank(chunks, ask)[:2])]),
    }
    qs = {name: laws([*text, *ask], answer) for name, text in context.items()}
    for name in context:
        for eta in ETAS:
            accepted.setdefault(name, {}).setdefault(eta, []).append(acceptance(ps, qs[name], eta))
    wins += accepted["right chunk"][0.0][-1] > accepted["random chunk"][0.0][-1]
    for eta in (None, 0.0, 5.0, 20.0):
        ways: dict[str, Any] = {}
        if eta is not None:
            ways = {"draft": RapidDraft(length=4, chunk=CHUNK, keep=2, query=len(ask)), "verify": RapidVerify(eta=eta)}
        session.restart(prompt)
        start, total = process_time(), runs.setdefault("plain" if eta is None else f"eta={eta:g}", [0.0] * 3)
        stats = decodery.decode(model, prompt, session=session, **sampled, **ways).stats
        for i, value in enumerate((stats.forwards, stats.tokens, process_time() - start)):
            total[i] += value

claims["right above random"] = f"{wins} of {TASKS}"
claims["password said by the target"] = f"{said} of {TASKS}"
claims["acceptance"] = {
    name: {f"eta={e:g}": round(sum(v) / TASKS, 3) for e, v in by.items()} for name, by in accepted.items()
}
claims["runs"] = {
    name: {"tokens a round": round(t / n, 2), "CPU seconds": round(s, 1)} for name, (n, t, s) in runs.items()
}
record("rapid", claims)
