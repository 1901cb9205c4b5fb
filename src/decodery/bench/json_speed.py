"""Answers under schemas, with drafts and without: compliance by an independent validator, and tokens a second."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from decodery.bench.json_data import Case
from decodery.core.errors import DecoderyError
from decodery.model.model import Model
from decodery.run.api import decode

SHOWN = 1200
"""Characters of a schema that the prompt shows."""
PLAIN = "none"


@dataclass
class Speed:
    """One way to decode, over all schemas; ``mask_share``: masks and walks by all seconds after the first token."""

    tokens: int = 0
    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    forwards: int = 0
    finished: int = 0
    cut: int = 0
    valid: int = 0
    differs: list[str] = field(default_factory=list)
    walk: float = 0.0
    whole: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the result file."""
        own = {k: v for k, v in asdict(self).items() if k not in ("first", "walk", "whole")}
        return own | {
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 2),
            "tokens_per_forward": round(self.tokens / max(self.forwards, 1), 3),
            "first_token_seconds": round(sorted(self.first)[len(self.first) // 2], 4) if self.first else None,
            "walk_share": round(self.walk / max(self.whole, 1e-9), 4),
        }


def prompt_of(case: Case) -> list[dict[str, str]]:
    """What the model is asked."""
    shown = json.dumps(case.schema)[:SHOWN]
    return [{"role": "user", "content": f"Answer with a JSON object that follows this schema:\n{shown}"}]


def measure(model: Model, cases: Sequence[Case], drafts: Sequence[str], new: int) -> Iterator[dict[str, Speed]]:
    """The figures so far after each schema; ``drafts`` begin with plain decoding, whose answers the others must have."""
    rows = {draft: Speed() for draft in drafts}
    for case in cases:
        plain: list[int] | None = None
        for draft, row in rows.items():
            plan = "off" if draft == PLAIN else "auto"
            spec = {"json-schema": {"schema": case.schema}}
            try:
                output = decode(model, prompt_of(case), constrain=spec, draft=draft, max_new_tokens=new, plan=plan)
            except DecoderyError:
                break  # refused schemas are counted where coverage is
            _book(row, output, case.schema)
            plain = output.tokens if plain is None else plain
            if output.tokens != plain:
                row.differs.append(case.name)
        yield rows


def _book(row: Speed, output: Any, schema: Any) -> None:
    stats = output.stats
    row.tokens += max(len(output.tokens) - 1, 0)
    row.seconds += stats.seconds - stats.first
    row.first.append(stats.first)
    row.forwards += stats.forwards
    row.walk += stats.phases.get("constrain", 0.0) + stats.phases.get("guide", 0.0)
    row.whole += sum(stats.phases.values())
    if output.finish_reason == "stop":
        row.finished += 1
        row.valid += complies(output.text, schema)
    else:
        row.cut += 1


def complies(text: str, schema: Any) -> bool:
    """Whether a text is JSON that the schema describes, as the library jsonschema says."""
    import jsonschema

    validator = jsonschema.validators.validator_for(schema)
    return bool(validator(schema).is_valid(json.loads(text)))


def unconstrained(model: Model, cases: Sequence[Case], new: int) -> dict[str, int]:
    """How many answers are valid without a constraint."""
    found = {"valid": 0, "asked": 0}
    for case in cases:
        text = decode(model, prompt_of(case), max_new_tokens=new).text
        found["asked"] += 1
        with suppress(ValueError):
            found["valid"] += complies(text, case.schema)
    return found


def transformers_peer(model: Model, cases: Sequence[Case], new: int) -> Speed:
    """llguidance alone, as a logits processor of transformers' ``generate``."""
    import llguidance
    import llguidance.torch
    import torch
    from transformers import AutoModelForCausalLM, LogitsProcessor

    from decodery.constrain.lib.schemas import grammar_of
    from decodery.model.resolve import resolve

    network: Any = AutoModelForCausalLM.from_pretrained(resolve(model.name), dtype=torch.float32)
    network.eval()
    words, row = model.matcher_tokenizer(), Speed()

    class Masked(LogitsProcessor):
        def __init__(self, matcher: Any) -> None:
            self.matcher, self.before, self.began = matcher, 0, 0.0
            self.bits = llguidance.torch.allocate_token_bitmask(1, model.vocab)

        def __call__(self, ids: Any, scores: Any) -> Any:
            if self.before:
                self.matcher.consume_tokens(ids[0, self.before :].tolist())
            else:
                self.began = perf_counter()
            self.before = ids.shape[1]
            llguidance.torch.fill_next_token_bitmask(self.matcher, self.bits)
            llguidance.torch.apply_token_bitmask_inplace(scores, self.bits)
            return scores

    for case in cases:
        matcher = llguidance.LLMatcher(words, grammar_of(case.schema, "spaced"), log_level=0)
        if matcher.is_error():
            continue
        ids = torch.tensor([model.tokens(prompt_of(case))])
        masked, began = Masked(matcher), perf_counter()
        tokens = network.generate(
            ids, logits_processor=[masked], max_new_tokens=new, do_sample=False, eos_token_id=sorted(model.eos)
        )[0, ids.shape[1] :].tolist()
        row.first.append(masked.began - began)
        row.tokens += len(tokens) - 1
        row.forwards += len(tokens)
        row.seconds += perf_counter() - masked.began
        if tokens[-1] in model.eos:
            row.finished += 1
            row.valid += complies(model.text.decode(tokens), case.schema)
        else:
            row.cut += 1
    return row
