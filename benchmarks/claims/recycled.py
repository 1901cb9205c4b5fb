"""Token Recycling, ADED, CopySpec on SmolLM2: greedy identity; what is learnt, from which rows, again; what drafting costs."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import DATA, differs, record, spec_bench

import decodery
from decodery.core.chooser import Chooser, Seeded
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.values import Budget
from decodery.draft.aded import Aded
from decodery.draft.copyspec import CopySpec
from decodery.draft.recycling import Recycling
from decodery.model.session import Session

COSTS = Path("benchmarks/results/2026-11-25-xeon-2core/spec-bench/run.json")
"""What a call of the model costs on an idle machine."""

NEW, PROMPTS = 24, 20


class Frozen(Recycling):
    """Learns nothing."""

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        pass


class AcceptedOnly(Recycling):
    """Learns from the rows of what stands, not from those of refused drafts."""

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        at = [step.rows.at(node) for node in step.verdict.path]
        ranked = step.rows.logits[[0, *(row for row in at if row is not None)]].topk(self.k).indices.tolist()
        self.lore.rank((step.rows.words(0)[-1], *(step.tree.tokens[i] for i in step.verdict.path)), ranked)


def main() -> None:
    model = decodery.load("smollm2", dtype="float32", backend="openvino")
    asked = spec_bench(model)[:PROMPTS]

    def run(make: Callable[[], Drafter] | None, which: Iterable[list[int]] = asked) -> list[Any]:
        draft: Any = make() if make else "none"
        options: dict[str, Any] = {"max_new_tokens": NEW, "plan": "off", "ignore_eos": True}
        return [decodery.decode(model, prompt, draft=draft, **options) for prompt in which]

    def per_call(outputs: list[Any]) -> float:
        return round(sum(o.stats.tokens for o in outputs) / sum(o.stats.forwards for o in outputs), 3)

    plain = run(None)
    figures: dict[str, Any] = {"prompts": PROMPTS, "new tokens": NEW, "backend": model.backend}
    variants: dict[str, Callable[[], Drafter]] = {
        "all rows": lambda: Recycling(prompt=False),
        "accepted rows only": lambda: AcceptedOnly(prompt=False),
        "frozen": lambda: Frozen(prompt=False),
    }
    runs = {name: run(make) for name, make in variants.items()}
    figures["recycling, tokens a call"] = {name: per_call(outputs) for name, outputs in runs.items()}

    table = Aded().bind(model)
    text = gzip.decompress((DATA / "corpus" / "tinyshakespeare.txt.gz").read_bytes()).decode()[:40_000]
    table.begin(model.session(model.encode(text)), Laws())
    first, second = run(lambda: table, asked[:10]), run(lambda: table, asked[:10])
    figures["aded, tokens a call, ten prompts"] = {"first pass": per_call(first), "second pass": per_call(second)}
    fresh = Aded()
    runs["aded"], runs["copyspec"] = run(lambda: fresh), run(CopySpec)
    figures["differ from plain decoding"] = {
        name: [
            gap
            for o, p, q in zip(outputs, plain, asked, strict=True)
            if (gap := differs(model, q, o.tokens, p.tokens)) is not None
        ]
        for name, outputs in runs.items()
    }

    # In seconds of this thread, against an idle machine's call of one token: benchmarks run beside this.
    call = json.loads(COSTS.read_text())["costs"]["decodery, openvino"]["1"]
    spent: dict[str, Any] = {"a call, ms (spec-bench/run.json)": call}
    for walks in (24, 150):
        draft = replace(fresh, simulations=walks)
        draft.lores = fresh.lores
        draft.bind(model)
        times = []
        for prompt in asked:
            session, started = model.session(prompt), time.thread_time()
            draft.propose(session, Budget(64, 64), Seeded(1))
            times.append(time.thread_time() - started)
        spent[f"{walks} walks, ms and share"] = round(1e3 * fmean(times), 3), round(1e3 * fmean(times) / call, 3)
    figures["aded, drafting"] = spent
    record("recycled", figures)


main()
