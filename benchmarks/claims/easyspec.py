"""EasySpec with SmolLM2 as the draft model: how far grouped attentions lead away, and what the calibration is worth.

Without calibration the draft model keeps what its grouped passes wrote into its cache; the prompt is exact in both.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import torch
from harness import DATA, record, spec_bench

import decodery
from decodery.core.chooser import Chooser
from decodery.core.part import Asking
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Site, Tensor, Want
from decodery.draft.easyspec import EasySpec, grouped
from decodery.draft.lib.draft_model import Drawn
from decodery.model.session import Session
from decodery.model.turn import forward
from decodery.model.variant import PLAIN, Variant
from decodery.model.view import View

TEXTS, LENGTH, LAST, PROMPTS, NEW = 6, 96, 8, 3, 240
FINAL = Want(frozenset({Site.FINAL}))


class Uncalibrated(EasySpec):
    """Reads the committed text with grouped attentions."""

    def open(self, session: Session) -> Session:
        assert self._model is not None
        self._exact = Session(self._model.arena(), session.tokens, variant=self._variant)
        forward(self._exact)
        return self._exact

    def after(self, session: Session, tree: TokenTree, nodes: Sequence[int]) -> Asking[list[Tensor | None]]:
        return Drawn.after(self, session, tree, nodes)

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        self._session.follow(session)


def states(model: Any, text: list[int], layers: Any, start: int) -> Tensor:
    """Final states from ``start`` on; what stands before is in the cache, exactly."""
    session = model.session(text[:start])
    forward(session)
    view = View(session, PLAIN if layers is None else Variant(layers))
    view.commit(text[start : start + 1])
    return forward(view, TokenTree.chain(text[start + 1 :]), FINAL).hidden[Site.FINAL]


def cosines(model: Any, texts: list[list[int]], group: int) -> dict[str, float]:
    layers, found = grouped(model.depth, group), {}
    for name, start in {"whole text": 1, f"{LAST} tokens after an exact cache": LENGTH - LAST}.items():
        pairs = [(states(model, text, layers, start), states(model, text, None, start)) for text in texts]
        parts = [torch.nn.functional.cosine_similarity(a, b) for a, b in pairs]
        found[name] = round(float(torch.cat(parts).mean()), 4)
        if group == 1:
            found[f"{name}, greatest difference"] = float(max((a - b).abs().max() for a, b in pairs))
    return found


def accepted(model: Any, prompts: list[list[int]], draft: EasySpec) -> dict[str, Any]:
    """Accepted by drafted: in all, and by thirds of the answers."""
    parts = [[0, 0], [0, 0], [0, 0]]
    for seed, prompt in enumerate(prompts):
        options: dict[str, Any] = {"guide": "temperature:0.8", "seed": seed, "ignore_eos": True, "max_new_tokens": NEW}
        emitted = 0
        for piece in decodery.stream(model, prompt, draft=draft, **options):
            if (step := piece.step) is not None:
                part = parts[min(2, 3 * emitted // NEW)]
                part[0] += len(step.verdict.path)
                part[1] += len(step.tree)
                emitted += len(step.tokens)
    return {
        "acceptance": round(sum(a for a, _ in parts) / sum(d for _, d in parts), 3),
        "by thirds of the answer": [round(a / d, 3) for a, d in parts],
        "drafted": sum(d for _, d in parts),
    }


def main() -> None:
    model = decodery.load("smollm2", dtype="float32")
    with gzip.open(DATA / "corpus" / "wikinews.jsonl.gz", "rt") as file:
        texts = [model.encode(json.loads(next(file))["text"])[:LENGTH] for _ in range(TEXTS)]
    claims: dict[str, Any] = {
        "cosine of final states to the exact ones, by group": {n: cosines(model, texts, n) for n in range(1, 6)}
    }
    prompts = spec_bench(model)[:PROMPTS]
    for group in (4,):
        for name, kind in {"calibrated": EasySpec, "uncalibrated": Uncalibrated}.items():
            claims[f"groups of {group}, {name}"] = accepted(model, prompts, kind(path=model, group=group))
    record("easyspec", claims)


if __name__ == "__main__":
    main()
