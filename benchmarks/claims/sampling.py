"""Speculative sampling on SmolLM2: 20 greedy answers of 64 tokens with a draft model; also as what CopySpec falls back to."""

from __future__ import annotations

from typing import Any

from written import differs, prompts, write

import decodery

NEW = 64
DRAFTS = {"model:length=3": 64, "mix(copyspec,model:length=2)": 16}


def main() -> None:
    model = decodery.load("smollm2", dtype="float32")
    asked = prompts(model, 20)
    options: dict[str, Any] = {"plan": "off", "ignore_eos": True}
    plain = [decodery.decode(model, prompt, max_new_tokens=NEW, **options) for prompt in asked]
    figures: dict[str, Any] = {"prompts": len(asked), "new tokens": DRAFTS}
    for draft, new in DRAFTS.items():
        outputs = [decodery.decode(model, prompt, draft=draft, max_new_tokens=new, **options) for prompt in asked]
        gaps = [differs(model, q, o.tokens, p.tokens[:new]) for q, o, p in zip(asked, outputs, plain, strict=True)]
        stats = [o.stats for o in outputs]
        figures[draft] = {
            "same": sum(gap is None for gap in gaps),
            "gaps of the two best logits where they part": [gap for gap in gaps if gap is not None],
            "tokens a call": round(sum(s.tokens for s in stats) / sum(s.forwards for s in stats), 3),
            "accepted of drafted": round(sum(s.accepted for s in stats) / max(1, sum(s.drafted for s in stats)), 3),
        }
    write("sampling", figures)


main()
