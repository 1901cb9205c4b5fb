"""SWIFT on SmolLM2: what 200 steps of its search find on a stream of one task, and what ending a draft early saves.

The stream is Spec-Bench's mathematics; the sets are compared on further prompts of it that the search never saw.
"""

from __future__ import annotations

from typing import Any

from harness import answered, record, spec_bench

import decodery
from decodery.core.part import ready
from decodery.core.roles import Laws
from decodery.draft.swift import Swift
from decodery.model.turn import forward

SETS, STREAM, FURTHER, NEW = 200, 30, 3, 64


def search(model: Any, prompts: list[list[int]], skip: float) -> tuple[Swift, dict[str, Any]]:
    """Decode the stream until enough sets were tried; the best score never falls."""
    draft, best = Swift(skip=skip, interval=1, enough=1.0), [-1.0]
    for used, prompt in enumerate(prompts, 1):
        decodery.decode(model, prompt, draft=draft, max_new_tokens=NEW, seed=used)
        found = draft.lore
        best.append(found.score)
        if len(found.tried) >= SETS:
            break
    running = [round(max(found.scores[: i + 1]), 3) for i in range(0, len(found.scores), 20)]
    return draft, {
        "left out": f"{len(found.best)} of {found.units} units",
        "sets tried": len(found.tried),
        "prompts": used,
        "score of the even set it begins with": round(found.scores[0], 3),
        "best score": round(found.score, 3),
        "best score after every 20 sets": running,
        "never falls": best == sorted(best) and found.score == max(found.scores),
        "first set better than the even one": next(
            (i for i, s in enumerate(found.scores) if s > found.scores[0]), None
        ),
        "best set": sorted(found.best),
    }


def matchness(model: Any, draft: Swift, texts: list[tuple[list[int], list[int]]], units: frozenset[int]) -> float:
    """The mean over answers: the share predicted without these units."""
    shares = []
    for prompt, answer in texts:
        session = model.session(prompt)
        forward(session)
        session.commit(answer)
        forward(session)
        bound = ready(draft, model)
        bound.begin(session, Laws())
        bound._session.follow(session)
        shares.append(answered(bound._matchness(session, units)))
        bound.end(session)
    return round(sum(shares) / len(shares), 3)


def drafting(model: Any, prompts: list[list[int]], draft: Swift) -> dict[str, float]:
    found = [decodery.decode(model, prompt, draft=draft, max_new_tokens=40).stats for prompt in prompts]
    drafted, accepted, steps = (sum(getattr(s, name) for s in found) for name in ("drafted", "accepted", "forwards"))
    return {
        "accepted a step": round(accepted / steps, 2),
        "wasted a step": round((drafted - accepted) / steps, 2),
        "wasted by accepted": round((drafted - accepted) / max(1, accepted), 3),
        "tokens per forward": round(sum(s.tokens for s in found) / steps, 2),
    }


def main() -> None:
    model = decodery.load("smollm2", dtype="float32")
    prompts = spec_bench(model, "math_reasoning")
    stream, further = prompts[FURTHER : FURTHER + STREAM], prompts[:FURTHER]
    texts = [(p, decodery.decode(model, p, max_new_tokens=33, ignore_eos=True).tokens) for p in further]
    claims: dict[str, Any] = {}
    for skip in (0.1, 0.45):
        draft, found = search(model, stream, skip)
        even = draft.lore.tried[0]
        found["on other prompts, even set"] = matchness(model, draft, texts, even)
        found["on other prompts, best set"] = matchness(model, draft, texts, draft.lore.best)
        if skip == 0.1:
            options: dict[str, Any] = {"interval": 0, "units": tuple(draft.lore.best)}
            found["drafts ended at 0.8, 25 at most"] = drafting(model, further, Swift(**options))
            for length in (3, 6):
                fixed = Swift(**options, confidence=0.0, length=length)
                found[f"drafts of {length}"] = drafting(model, further, fixed)
        claims[f"skip {skip}"] = found
    record("swift", claims)


if __name__ == "__main__":
    main()
