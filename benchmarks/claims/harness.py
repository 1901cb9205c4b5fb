"""What the scripts here share: prompts, and the file that the figures go to.

The shared data is at ``DECODERY_DATA``; torch computes on one core.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch

from decodery.core.part import Asking
from decodery.inspect.doctor import machine
from decodery.model.model import Model
from decodery.model.turn import forward

RESULTS = Path("benchmarks/results/2026-11-28-epyc-2core/claims")
DATA = Path(os.environ.get("DECODERY_DATA", "../shared/data"))
STARTED = perf_counter()
T = TypeVar("T")
torch.set_num_threads(1)


def answered(asking: Asking[T]) -> T:
    """The result of what asks for passes, a drafter's proposal say."""
    try:
        asks = next(asking)
        while True:
            asks = asking.send([forward(ask.session, ask.tree, ask.want, ask.fresh) for ask in asks])
    except StopIteration as end:
        value: T = end.value
        return value


def spec_bench(model: Model, category: str = "") -> list[list[int]]:
    """First turns of Spec-Bench as the model reads them, shortest first; of one category, or in turns of each."""
    groups: dict[str, list[list[int]]] = {}
    for line in (DATA / "spec_bench" / "question.jsonl").read_text().splitlines():
        question = json.loads(line)
        if category in ("", question["category"]):
            tokens = model.tokens([{"role": "user", "content": question["turns"][0]}])
            groups.setdefault(question["category"], []).append(tokens)
    ranked = [sorted(group, key=len) for group in groups.values()]
    return [group[i] for i in range(max(map(len, ranked))) for group in ranked if i < len(group)]


def differs(model: Model, prompt: list[int], ours: list[int], plain: list[int]) -> float | None:
    """None where both are the same, else how far apart the two likeliest tokens are, in logits, where they part."""
    if ours == plain:
        return None
    at = next(i for i, (a, b) in enumerate(zip(ours, plain, strict=True)) if a != b)
    best = forward(model.session([*prompt, *plain[:at]])).logits[0].topk(2).values
    return float(best[0] - best[1])


def record(slug: str, claims: Mapping[str, Any]) -> None:
    """Print the figures and write them with what they were measured on."""
    head = {
        "machine": machine(),
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "command": f"OMP_NUM_THREADS=1 python {' '.join(sys.argv)}",
        "seconds": round(perf_counter() - STARTED),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**head, "claims": claims}, indent=1)
    (RESULTS / f"{slug}.json").write_text(text + "\n")
    print(json.dumps(claims, indent=1))
