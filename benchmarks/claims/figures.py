"""What these scripts share: prompts, and the file that the figures go to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from decodery.doctor import machine
from decodery.model.model import Model

RESULTS = Path("benchmarks/results/2026-11-25-xeon-2core/claims")
DATA = Path(os.environ.get("DECODERY_DATA", "../shared/data"))
STARTED = perf_counter()
torch.set_num_threads(1)


def spec_bench(model: Model, n: int) -> list[list[int]]:
    """The first turns of ``n`` Spec-Bench questions, of all categories in turn, the shorter ones of each."""
    by_kind: dict[str, list[list[int]]] = {}
    for line in (DATA / "spec_bench" / "question.jsonl").read_text().splitlines():
        question = json.loads(line)
        tokens = model.tokens([{"role": "user", "content": question["turns"][0]}])
        by_kind.setdefault(question["category"], []).append(tokens)
    ranked = [sorted(kind, key=len) for kind in by_kind.values()]
    return [kind[i] for i in range(max(map(len, ranked))) for kind in ranked if i < len(kind)][:n]


def record(slug: str, claims: Mapping[str, Any]) -> None:
    """Print the figures and write them with what they were measured on."""
    head = {
        "machine": machine(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "command": " ".join(["OMP_NUM_THREADS=1 python", *sys.argv]),
        "seconds": round(perf_counter() - STARTED),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{slug}.json").write_text(json.dumps({**head, "claims": claims}, indent=1) + "\n")
    print(json.dumps(claims, indent=1))
