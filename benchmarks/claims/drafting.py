"""What drafters without a model cost a step, and what they keep: after 8192 tokens of a real text.

The text is Tiny Shakespeare in SmolLM2's tokens; what follows it is committed one token at a time, and the drafter sees rows
whose likeliest tokens are random but for the right one, so it learns as much as from a network.
"""

from __future__ import annotations

import gzip
import statistics
import tempfile
import tracemalloc
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
from harness import DATA, record

from decodery.core.chooser import Seeded
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step, Verdict
from decodery.core.values import Budget, Rows
from decodery.draft.lib.store import index
from decodery.model.load import load_text
from decodery.model.session import Session
from decodery.model.toy import ToyArena
from decodery.run.spec import part

CONTEXT, STEPS, BUDGET = 8192, 300, Budget(16, 16)
NAMES = ("ngram", "copyspec", "suffix", "recycling", "aded", "datastore")


def main() -> None:
    text = load_text("smollm2")
    words = gzip.decompress((DATA / "corpus" / "tinyshakespeare.txt.gz").read_bytes()).decode()
    tokens = text.encode(words[:60_000])
    assert len(tokens) > CONTEXT + STEPS
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        (Path(folder) / "corpus.txt").write_text(words[60_000:])
        index([Path(folder) / "corpus.txt"], text.encode, "", store)
        model: Any = SimpleNamespace(fingerprint=lambda: "")
        claims = {}
        for name in NAMES:
            spec = f"datastore:path={store}" if name == "datastore" else name
            claims[name] = measure(part("draft", spec).bind(model), tokens, text.vocab)
    record("drafting", {"context": CONTEXT, "steps": STEPS, "nodes": BUDGET.nodes, **claims})


def measure(draft: Any, tokens: list[int], vocab: int) -> dict[str, float]:
    """Milliseconds of ``propose`` (the "draft" of a step's figures without learning) and of ``observe``; bytes kept."""
    tracemalloc.start()
    session, rng = Session(ToyArena(lambda _: torch.zeros(1), lambda _: torch.zeros(1)), tokens[:CONTEXT]), Seeded(0)
    assert isinstance(draft, Drafter)
    draft.begin(session, Laws())
    draft.propose(session, BUDGET, rng)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    proposing, learning = [], []
    generator = torch.Generator().manual_seed(0)
    for token in tokens[CONTEXT : CONTEXT + STEPS]:
        start = perf_counter()
        tree = draft.propose(session, BUDGET, rng)
        proposing.append(1e3 * (perf_counter() - start))
        logits = torch.randn(1 + len(tree), vocab, generator=generator)
        logits[0, token] = 9.0
        rows = Rows(logits, tuple(session.tokens), [(), *map(tree.words, tree.live())], range(1, len(tree) + 1))
        law: Any = Laws()(rows)
        session.commit([token])
        start = perf_counter()
        draft.observe(session, Step(tree, rows, law, Verdict((), (token,)), [token]), rng)
        learning.append(1e3 * (perf_counter() - start))
    figures = {"propose, median ms": statistics.median(proposing), "propose, 99th of 100 ms": percentile(proposing)}
    figures |= {"observe, median ms": statistics.median(learning), "kept after the prompt, kB": kept / 1e3}
    return {name: round(figure, 3) for name, figure in figures.items()}


def percentile(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


if __name__ == "__main__":
    main()
