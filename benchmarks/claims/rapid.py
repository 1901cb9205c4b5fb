"""RAPID on SmolLM2: a fact in one of 20 chunks of a novel, and a question about it.

Recall@k of the retrieval; how often drafts are accepted, sum(min(q, p_hat)) over the target's own answer, where the draft
model reads the right chunk, another one, or what was retrieved; and real runs. Run from the repository root.
"""

from __future__ import annotations

import random
from time import process_time
from typing import Any

import torch
from harness import DATA, record

import decodery
from decodery.core.tree import TokenTree
from decodery.core.values import Tensor
from decodery.draft.rapid import RapidDraft, rank
from decodery.model.session import Session
from decodery.model.turn import forward
from decodery.verify.rapid import RapidVerify, tilt

CHUNKS, CHUNK, NEEDLES, TASKS, ANSWER = 20, 48, 100, 6, 6
ETAS = (0, 1, 5, 10, 20, 50)
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
    other = f"\n\nQuestion: What must I say at the {place} to get in?\nAnswer:"
    return chunks, right, model.encode(ask), model.encode(other)


def laws(session: Session, answer: list[int]) -> Tensor:
    """The law of each token of an answer."""
    return forward(session, TokenTree.chain(answer[:-1])).logits.softmax(-1)


def acceptance(ps: Tensor, qs: Tensor, eta: float) -> float:
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

accepted, runs, wins, said = dict[str, list[list[float]]](), dict[str, list[float]](), 0, 0
sampled: dict[str, Any] = {"guide": "temperature:1.0", "seed": 1, "max_new_tokens": 16, "ignore_eos": True}
for _ in range(TASKS):
    chunks, right, ask, _ = task(rng)
    other = rng.choice([i for i in range(CHUNKS) if i != right])
    prompt = [*(token for chunk in chunks for token in chunk), *ask]
    session = model.session(prompt)
    answer = decodery.decode(model, prompt, session=session, max_new_tokens=ANSWER, ignore_eos=True).tokens
    told = [word.rstrip(".") for word in model.text.decode(answer).split()[:2]]
    said += told == model.text.decode(chunks[right][:-1]).split()[-2:]
    session.restart(prompt)
    ps = laws(session, answer)
    kept = {"right chunk": [right], "random chunk": [other], "two retrieved": sorted(rank(chunks, ask)[:2])}
    for name, context in kept.items():
        qs = laws(model.session([*(token for i in context for token in chunks[i]), *ask]), answer)
        accepted.setdefault(name, []).append([acceptance(ps, qs, eta) for eta in ETAS])
    wins += accepted["right chunk"][-1][0] > accepted["random chunk"][-1][0]
    for eta in (None, 0, 5, 20):
        part = {"draft": RapidDraft(length=4, chunk=CHUNK, keep=2, query=len(ask)), "verify": RapidVerify(eta=eta or 0)}
        session.restart(prompt)
        start, total = process_time(), runs.setdefault("plain" if eta is None else f"eta={eta}", [0.0] * 3)
        stats = decodery.decode(model, prompt, session=session, **sampled, **({} if eta is None else part)).stats
        for i, value in enumerate((stats.forwards, stats.tokens, process_time() - start)):
            total[i] += value

claims["right above random"] = f"{wins} of {TASKS}"
claims["password said by the target"] = f"{said} of {TASKS}"
claims["acceptance"] = {
    name: {
        f"eta={eta}": round(sum(column) / TASKS, 3) for eta, column in zip(ETAS, zip(*rows, strict=True), strict=True)
    }
    for name, rows in accepted.items()
}
claims["runs"] = {name: {"tokens a round": round(t / n, 2), "CPU s": round(s, 1)} for name, (n, t, s) in runs.items()}
record("rapid", claims)
