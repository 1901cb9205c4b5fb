"""A run's results: tables in Markdown and HTML, pictures, one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from decodery.bench import plots
from decodery.bench.driver import read
from decodery.bench.figures import Figures, figures
from decodery.bench.runners import PLAIN
from decodery.core.files import write_whole

NOTES = (
    "Decoding of the same prompt tokens, greedy unless guides are named, every runner in turn on every prompt, in one process. "
    "tok/s counts decoding: tokens after the first burst by the seconds they took; the prompt's time is in the time to "
    "first token, and 'whole' counts both. Ratios are taken in each category and averaged over the categories; in "
    "brackets the 95 % interval (bootstrap over prompts). Acceptance leaves the verifier's own token out, tokens per "
    "forward counts it in. Time per token: a burst's tokens share its time. Identical: turns whose tokens equal those of "
    "plain decoding by our engine ('none'); a difference where the two best logits lie within 1e-3 counts as a tie."
)

Table = tuple[list[str], list[list[str]]]


def publish(folder: Path) -> list[Figures]:
    """Write summary.json, summary.md, the pictures and report.html from what a run has recorded."""
    run = json.loads((folder / "run.json").read_text())
    records = read(folder)
    names = list(dict.fromkeys(record.runner for record in records))
    rows = figures(records, [name for name in names if name.partition("@")[0] == PLAIN or plots.is_peer(name)])
    if not rows:
        return []
    pictures = {"speed": plots.speeds(rows)}
    references = [name for name in (PLAIN, "transformers") if name in names and len(names) > 1]
    pictures |= {f"against-{name}": plots.categories(rows, name) for name in references}
    if run["costs"]:
        pictures["cost"] = plots.costs(run["costs"])
    drawn = bool(run["config"].get("guides") or run["config"].get("parts", {}).get("guide"))
    tables = {
        "Methods": overall(rows, drawn),
        **{f"Speed against {r}": by_category(rows, r) for r in references},
    }
    tables |= {"Tokens per forward": by_forwards(rows), "Accepted drafts": by_depth(rows)}
    if run["footprints"]:
        tables["Load and memory"] = footprints(run["footprints"])
    for name, picture in pictures.items():
        write_whole(folder / f"{name}.png", plots.png(picture))
    write_whole(folder / "summary.json", json.dumps([row.as_dict() for row in rows], indent=1))
    missing = _missing(run, rows)
    write_whole(
        folder / "summary.md",
        missing + "\n".join(f"## {title}\n\n{markdown(table)}" for title, table in tables.items()),
    )
    write_whole(
        folder / "report.html", _page(run, missing, tables, [plots.svg(picture) for picture in pictures.values()])
    )
    return rows


def _missing(run: dict[str, Any], rows: Sequence[Figures]) -> str:
    """Says so where turns were left out, empty where none were."""
    turns = run["config"].get("turns", rows[0].prompts)
    if turns == rows[0].prompts:
        return ""
    return f"{turns - rows[0].prompts} of {turns} turns were left out: with the answer they exceed the model's context.\n\n"


def overall(rows: Sequence[Figures], sampled: bool = False) -> Table:
    """The leaderboard, fastest first; drawn answers (``sampled``) are not compared with each other."""
    references = list(rows[0].ratios)
    best = sorted(rows, key=lambda row: -row.speed)
    head = ["method", "tok/s", *(f"x {name}" for name in references), "tokens/forward", "accepted", "draft time"]
    head += ["ms/token p50", "p95", "first token s", "whole tok/s", "identical"]
    graded = any(row.right is not None for row in rows)
    body = [
        [
            row.runner,
            f"{row.speed:.1f}",
            *(_ratio(row, name) for name in references),
            _figure(row.tokens_per_forward, ".2f"),
            _figure(row.acceptance, ".0%"),
            _figure(row.draft_share, ".1%"),
            f"{row.p50:.1f}",
            f"{row.p95:.1f}",
            f"{row.first:.2f}",
            f"{row.whole:.1f}",
            "drawn" if sampled else f"{row.same} of {row.prompts}" + (f" ({row.ties} ties)" if row.ties else ""),
            *([_figure(row.right, ".1%")] if graded else []),
        ]
        for row in best
    ]
    return [*head, *(["right"] if graded else [])], body


def by_category(rows: Sequence[Figures], reference: str) -> Table:
    """Ratio of speeds in each category."""
    rows = [row for row in rows if reference in row.categories]
    names = list(rows[0].categories[reference])
    body = [
        [row.runner, *(f"{row.categories[reference][n]:.2f}" for n in names), f"{row.ratios[reference][0]:.2f}"]
        for row in rows
    ]
    return ["method", *names, "mean"], body


def by_forwards(rows: Sequence[Figures]) -> Table:
    """Tokens per forward in each category."""
    rows = [row for row in rows if row.forwards]
    names = list(rows[0].forwards)
    body = [
        [row.runner, *(f"{row.forwards[n]:.2f}" for n in names), f"{sum(row.forwards.values()) / len(names):.2f}"]
        for row in rows
    ]
    return ["method", *names, "mean"], body


def by_depth(rows: Sequence[Figures]) -> Table:
    """Share of forwards that accept at least so many drafts, and what drafting costs."""
    rows = [row for row in rows if row.at]
    depths = (1, 2, 3, 4, 6, 8, 12)
    body = [
        [
            row.runner,
            _figure(row.draft_ms, ".2f"),
            *(f"{row.at[d - 1]:.0%}" if d <= len(row.at) else "" for d in depths),
        ]
        for row in rows
    ]
    return ["method", "draft ms/step", *(f"at least {d}" for d in depths)], body


def footprints(measured: dict[str, dict[str, float]]) -> Table:
    """Seconds to load and MiB, each runner in a fresh process."""
    body = [
        [name, f"{f['load']:.1f}", *(f"{f[key]:.0f}" for key in ("imports", "own", "peak"))]
        for name, f in measured.items()
        if f
    ]
    return ["method", "load s", "MiB after imports", "own MiB", "peak MiB with mapped files"], body


def markdown(table: Table) -> str:
    """As Markdown."""
    head, body = table
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))


def _html(table: Table) -> str:
    head, body = table

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in body)}</table>"


def _page(run: dict[str, Any], missing: str, tables: dict[str, Table], pictures: list[str]) -> str:
    facts = {**run["config"], **run["machine"], "date": run["date"], "command": run["command"]}
    told = "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    reasons = [*run["left_out"], *filter(None, [missing.strip()])]
    left_out = "".join(f"<p class=note>{escape(reason)}</p>" for reason in reasons)
    shown = "".join(f"<h2>{escape(title)}</h2>{_html(table)}" for title, table in tables.items())
    page = Path(__file__).with_name("report.html").read_text()
    filled = {"title": run["config"]["suite"], "notes": NOTES, "pictures": "".join(pictures), "tables": shown}
    for key, value in {**filled, "left_out": left_out, "facts": told}.items():
        page = page.replace("{{" + key + "}}", value)
    return page


def _ratio(row: Figures, reference: str) -> str:
    mean, low, high = row.ratios[reference]
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
