"""``decodery bench json``: coverage, verdicts, masks, compliance and speed, in a table and a file."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decodery.bench.json_data import maskbench, schemas, spread, test_suite
from decodery.bench.json_engines import engine
from decodery.bench.json_masks import Verdicts, judge
from decodery.bench.json_speed import measure, transformers_peer, unconstrained
from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole
from decodery.inspect.doctor import machine
from decodery.model.model import Model

OURS = "decodery"
DRAFTS = ("none", "auto", "schema", "suffix")
PEER_SECONDS = 60.0
"""What each other engine may take for MaskBench; the rest of the schemas is then not looked at."""
LEFT_OUT = ("Kubernetes", "Github_ultra")
"""Splits whose schemas are too long for the demo model's prompt; they count for coverage, not for speed."""


def bench_json(
    model: Model, folder: Path, engines: Sequence[str], limit: int, new: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measure all and write ``json.json`` and ``json.md`` into the folder. ``limit``: schemas that are answered."""
    logging.getLogger("decodery.constrain").setLevel(logging.ERROR)  # what is listed there is in the result
    tokens = model.matcher_tokenizer().tokenize_str
    result: dict[str, Any] = {"machine": machine(), "model": model.name, "new_tokens": new}
    tell("coverage of JSONSchemaBench")
    every = schemas()
    covered = judge(engine(OURS, model), tokens, every)
    result["jsonschemabench"] = covered.as_dict()
    result["maskbench"] = {}
    for name in dict.fromkeys((OURS, *engines)):
        tell(f"MaskBench with {name}")
        try:
            found = judge(engine(name, model), tokens, maskbench(), 1e9 if name == OURS else PEER_SECONDS)
            result["maskbench"][name] = found.as_dict() | {"wrong": found.wrong if name == OURS else len(found.wrong)}
        except DecoderyError as error:
            result["maskbench"][name] = {"left out": str(error)}
    tell("JSON Schema Test Suite")
    suite = judge(engine(OURS, model), tokens, test_suite())
    result["test_suite"] = suite.as_dict() | {"differences": _differences(suite)}
    chosen = spread([case for case in every if case.group not in LEFT_OUT], limit)
    for done, rows in enumerate(measure(model, chosen, DRAFTS, new), 1):
        tell(f"answers: {done} of {len(chosen)}")
        result["answers"] = {draft: row.as_dict() for draft, row in rows.items()}
    tell("answers without a constraint, and by transformers with llguidance")
    result["unconstrained"] = unconstrained(model, chosen, new)
    result["answers"]["transformers + llguidance"] = transformers_peer(model, chosen, new).as_dict()
    result["sample"] = {"answered": len(chosen), "of": len(every), "names": [f"{c.group}/{c.name}" for c in chosen]}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "json.json", json.dumps(result, indent=1, ensure_ascii=False))
    write_whole(folder / "json.md", table(result))
    return result


def _differences(suite: Verdicts) -> list[dict[str, Any]]:
    """Every instance of the suite that is judged otherwise, with the reason."""
    return [
        {"file": group, "schema": name, "instance": about, "valid": valid, "reason": _reason(group, name, valid)}
        for group, name, about, valid in suite.wrong
    ]


def _reason(group: str, name: str, valid: bool) -> str:
    last = group.rpartition("/")[2]
    if not valid and "format" in group:
        return "the format is enforced by its form: leap seconds, leap years and the rules of host names are not"
    if valid and last == "format":
        return "the suite takes formats for annotations here; they are enforced"
    if valid and last in ("const", "enum", "type"):
        return "1.0 and 1 are one number to the standard, and objects of other order one object; here the text counts"
    if last == "ref":
        return "an $id beside a $ref, which draft 7 does not look at"
    return "the order of properties, or a way to write the value, that the grammar does not have"


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        "| engine | compiled | valid right | invalid right | mask ms p50 | p99 | worst | tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["maskbench"].items():
        if "left out" in row:
            lines.append(f"| {name} | {row['left out']} | | | | | | |")
            continue
        c = Counter(row)
        total = c["compiled"] + c["refused"]
        valid, invalid = (f"{c[k + ' right']} of {c[k + ' right'] + c[k + ' wrong']}" for k in ("valid", "invalid"))
        mask = row["mask_ms"]
        lines.append(
            f"| {name} | {c['compiled']} of {total} | {valid} | {invalid} | {mask['p50']} | {mask['p99']} | {mask['worst']} "
            f"| {row['tokens']} |"
        )
    lines += [
        "",
        "| answers | tok/s | x none | tokens/forward | finished | valid | masks, walk | differs | first token s |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    plain = result["answers"]["none"]["tokens_per_second"]
    for name, row in result["answers"].items():
        lines.append(
            f"| {name} | {row['tokens_per_second']} | {row['tokens_per_second'] / plain:.2f} | {row['tokens_per_forward']} "
            f"| {row['finished']} | {row['valid']} | {row['walk_share']:.1%} | {len(row['differs'])} "
            f"| {row['first_token_seconds']} |"
        )
    return "\n".join(lines) + "\n"
