"""What some scripts here share: prompts, and the file that the figures go to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from decodery.doctor import machine
from decodery.model.model import Model

RESULTS = Path("benchmarks/results/2026-11-25-xeon-2core/claims")
DATA = Path(os.environ.get("DECODERY_DATA", "../shared/data"))
torch.set_num_threads(1)


def prompts(model: Model, count: int) -> list[list[int]]:
    """The shortest first turns of Spec-Bench, the categories in turns."""
    groups: dict[str, list[list[int]]] = {}
    for line in (DATA / "spec_bench" / "question.jsonl").read_text().splitlines():
        question = json.loads(line)
        tokens = model.tokens([{"role": "user", "content": question["turns"][0]}])
        groups.setdefault(question["category"], []).append(tokens)
    ranked = [sorted(group, key=len) for group in groups.values()]
    return [group[i] for i in range(count) for group in ranked if i < len(group)][:count]


def differs(model: Model, prompt: list[int], ours: list[int], plain: list[int]) -> float | None:
    """None where both are the same, else how far apart the two likeliest tokens are, in logits, where they part."""
    if ours == plain:
        return None
    at = next(i for i, (a, b) in enumerate(zip(ours, plain, strict=True)) if a != b)
    best = model.session([*prompt, *plain[:at]]).forward().logits[0].topk(2).values
    return float(best[0] - best[1])


def write(slug: str, figures: Mapping[str, Any]) -> None:
    """Print the figures and write them with what they were measured on."""
    head = {
        "machine": machine(),
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "command": f"OMP_NUM_THREADS=1 python {' '.join(sys.argv)}",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{slug}.json").write_text(json.dumps({**head, "figures": figures}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
