"""A run's results as files: tables, pictures for a page and for print, and one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from decodery.bench import plots, tables
from decodery.bench.driver import read
from decodery.bench.figures import Figures, figures
from decodery.bench.runners import PLAIN, is_peer
from decodery.bench.tables import Table
from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole

NOTES = (
    "Decoding of the same prompt tokens, greedy unless guides are named, every runner in turn on every prompt, in one process. "
    "tok/s counts decoding: tokens after the first burst by the seconds they took; the prompt's time is in the time to "
    "first token, and 'whole' counts both. Ratios are taken in each category and averaged over the categories; in "
    "brackets the 95 % interval (bootstrap over prompts and repetitions; none where a category was measured once). Acceptance "
    "leaves the verifier's own token out, tokens per forward counts it in. Time per token: a burst's tokens share its time. "
    "Identical: turns whose tokens equal those of plain decoding by our engine ('none'); a difference where the two best "
    "logits lie within 1e-3 counts as a tie. In pictures each method has one colour, and peers are hatched."
)


def publish(folder: Path) -> list[Figures]:
    """Write everything but the records, from what a run has recorded in ``folder``; nothing is decoded.

    That is summary.md, .json, .csv and .tex, the pictures as PNG, SVG and PDF, and report.html. Of a run whose records are
    gone, ``summary.json`` is read in their place. Raises ``DecoderyError`` where ``folder`` holds no run.
    """
    if not (folder / "run.json").is_file():
        raise DecoderyError(f"{folder} holds no run of decodery bench: it has no run.json")
    run = json.loads((folder / "run.json").read_text())
    rows = _rows(folder)
    if not rows:
        return []
    named = {row.runner for row in rows}
    references = [name for name in (PLAIN, "transformers") if name in named and len(named) > 1]
    told = plots.Told(tables.title(run), tables.caption(run))
    pictures = {"speed": plots.speeds(rows, told)}
    pictures |= {f"against-{name}": plots.categories(rows, name, told) for name in references}
    if run["costs"]:
        pictures["cost"] = plots.costs(run["costs"], told)
    found = _tables(run, rows, references)
    missing = _missing(run, rows)
    heading = f"# {tables.title(run)}\n\n{tables.caption(run)}\n\n{missing}"
    written: dict[str, str | bytes] = {
        "summary.json": json.dumps([row.as_dict() for row in rows], indent=1),
        "summary.csv": tables.comma_separated(rows, run),
        "summary.tex": tables.latex(
            _short(found["Methods"]), f"{tables.title(run)}. {tables.caption(run)}", run["config"]["suite"]
        ),
        "summary.md": heading + "\n".join(f"## {name}\n\n{tables.markdown(table)}" for name, table in found.items()),
        "report.html": _page(run, missing, found, pictures),
    }
    for name, picture in pictures.items():
        written |= {
            f"{name}.png": plots.png(picture),
            f"{name}.svg": plots.svg(picture),
            f"{name}.pdf": plots.pdf(picture),
        }
    for name, content in written.items():
        write_whole(folder / name, content)
    return rows


def _rows(folder: Path) -> list[Figures]:
    records = read(folder)
    names = list(dict.fromkeys(record.runner for record in records))
    summary = folder / "summary.json"
    if not records and summary.is_file():
        return [Figures(**row) for row in json.loads(summary.read_text())]
    return figures(records, [name for name in names if name.partition("@")[0] == PLAIN or is_peer(name)])


def _tables(run: Mapping[str, Any], rows: Sequence[Figures], references: Sequence[str]) -> dict[str, Table]:
    drawn = bool(run["config"].get("guides") or run["config"].get("parts", {}).get("guide"))
    others = [name for name in rows[0].ratios if name not in references]
    found = {"Methods": tables.overall(rows, references, drawn)}
    if others:
        found["Speed against each peer"] = tables.by_reference(rows, others)
    found |= {f"Speed against {name}": tables.by_category(rows, name) for name in references}
    found |= {"Tokens per forward": tables.by_forwards(rows), "Accepted drafts": tables.by_depth(rows)}
    if run["footprints"]:
        found["Load and memory"] = tables.footprints(run["footprints"])
    return {name: table for name, table in found.items() if table[1]}


def _short(table: Table) -> Table:
    """The columns of the first table that a paper has room for."""
    head, body = table
    kept = [i for i, name in enumerate(head) if name not in ("draft time", "ms/token p50", "p95", "whole tok/s")]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in body]


def _missing(run: Mapping[str, Any], rows: Sequence[Figures]) -> str:
    """Says so where turns were left out, empty where none were."""
    turns = run["config"].get("turns", rows[0].prompts)
    if turns == rows[0].prompts:
        return ""
    return f"{turns - rows[0].prompts} of {turns} turns were left out: with the answer they exceed the model's context.\n\n"


def _page(run: Mapping[str, Any], missing: str, found: Mapping[str, Table], pictures: Mapping[str, Any]) -> str:
    facts = {**run["config"], **run["machine"], "date": run["date"], "command": run["command"]}
    reasons = [*run["left_out"], *filter(None, [missing.strip()])]
    filled = {
        "title": escape(tables.title(run)),
        "caption": escape(tables.caption(run)),
        "notes": escape(NOTES),
        "left_out": "".join(f"<p class=note>{escape(reason)}</p>" for reason in reasons),
        "pictures": "".join(
            f'<figure class="wide" tabindex="0" role="img" aria-label="{escape(name)}">{plots.inline(one)}</figure>'
            for name, one in pictures.items()
        ),
        "tables": "".join(f"<h2>{escape(name)}</h2>{tables.html(table)}" for name, table in found.items()),
        "facts": "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items()),
    }
    page = Path(__file__).with_name("report.html").read_text()
    for key, value in filled.items():
        page = page.replace("{{" + key + "}}", value)
    return page
