"""The tables of a run: as Markdown, HTML, CSV and LaTeX, and the words that say which run it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from decodery.bench.figures import Figures
from decodery.inspect.doctor import in_a_line

Table = tuple[list[str], list[list[str]]]
"""Head and rows."""


def title(run: Mapping[str, Any]) -> str:
    """What was decoded: ``spec-bench, 24 prompts (28 turns), 128 new tokens, one repetition``."""
    config = run["config"]
    repeat = config.get("repeat", 1)
    told = [config["suite"]]
    if "tasks" in config:
        told.append(f"{config['tasks']} prompts ({config['turns']} turns)")
    if "max_new_tokens" in config:
        told.append(f"{config['max_new_tokens']} new tokens")
    return ", ".join([*told, "one repetition" if repeat == 1 else f"{repeat} repetitions"])


def caption(run: Mapping[str, Any]) -> str:
    """Model, machine, versions, commit and day of a run."""
    model = run.get("model") or run["config"].get("model", "")
    return " · ".join(filter(None, [model, in_a_line(run["machine"]), run["date"].partition("T")[0]]))


def overall(rows: Sequence[Figures], references: Sequence[str], sampled: bool = False) -> Table:
    """The leaderboard, fastest first; drawn answers (``sampled``) are not compared with each other."""
    best = sorted(rows, key=lambda row: -row.speed)
    head = ["method", "tok/s", *(f"x {name}" for name in references), "tokens/forward", "accepted", "draft time"]
    head += ["ms/token p50", "p95", "first token s", "whole tok/s", "identical"]
    several = any(len(row.repetitions) > 1 for row in rows)
    graded = any(row.right is not None for row in rows)
    body = [
        [
            row.runner,
            f"{row.speed:.1f}" + _range(row.speed_range, ".1f"),
            *(_ratio(row, name) for name in references),
            _figure(row.tokens_per_forward, ".2f"),
            _figure(row.acceptance, ".0%"),
            _figure(row.draft_share, ".1%"),
            f"{row.p50:.1f}",
            f"{row.p95:.1f}",
            f"{row.first:.2f}",
            f"{row.whole:.1f}",
            "drawn" if sampled else f"{row.same} of {row.answers}" + (f" ({row.ties} ties)" if row.ties else ""),
            *([f"{min(row.repetitions):.1f} to {max(row.repetitions):.1f}"] if several else []),
            *([_figure(row.right, ".1%")] if graded else []),
        ]
        for row in best
    ]
    return [*head, *(["tok/s of a repetition"] if several else []), *(["right"] if graded else [])], body


def by_reference(rows: Sequence[Figures], references: Sequence[str]) -> Table:
    """Ratio of speeds against each of several references."""
    best = sorted(rows, key=lambda row: -row.speed)
    return ["method", *(f"x {name}" for name in references)], [
        [row.runner, *(_ratio(row, name) for name in references)] for row in best
    ]


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


def footprints(measured: Mapping[str, Mapping[str, float]]) -> Table:
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


def html(table: Table) -> str:
    """As HTML, in a frame that scrolls where the screen is narrow."""
    head, body = table

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = "".join(row(cells, "td") for cells in body)
    return f'<div class="wide" tabindex="0"><table><thead>{row(head, "th")}</thead><tbody>{lines}</tbody></table></div>'


def comma_separated(rows: Sequence[Figures], run: Mapping[str, Any]) -> str:
    """As CSV: a line a method, numbers as they were measured, and in each line which run it was."""
    machine = run["machine"]
    common = {"suite": run["config"]["suite"], "model": run["config"].get("model", ""), "date": run["date"]}
    common |= {
        "processor": machine.get("processor"),
        "decodery": machine.get("decodery"),
        "commit": machine.get("commit"),
    }
    lines: list[dict[str, Any]] = []
    for row in rows:
        low, high = row.speed_range or (None, None)
        line = {"method": row.runner, "tok_s": row.speed, "tok_s_low": low, "tok_s_high": high}
        for name, (mean, least, most) in row.ratios.items():
            line |= {f"x {name}": mean, f"x {name} low": least, f"x {name} high": most}
        own = (
            "tokens_per_forward",
            "acceptance",
            "draft_share",
            "p50",
            "p95",
            "first",
            "whole",
            "same",
            "answers",
            "right",
        )
        line |= {key: getattr(row, key) for key in own}
        for name, spread in row.categories.items():
            line |= {f"x {name} in {category}": ratio for category, ratio in spread.items()}
        lines.append(line | common)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def latex(table: Table, words: str, label: str) -> str:
    """As a LaTeX table (package booktabs) with ``words`` as its caption."""
    head, body = table
    lines = [" & ".join(map(_tex, row)) + r" \\" for row in (head, *body)]
    return "\n".join(
        [
            r"% \usepackage{booktabs}; a wide table may want \resizebox{\textwidth}{!}{...} of graphicx",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(words)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "·": r"$\cdot$"}
TEX |= {mark: "\\" + mark for mark in "&%$#_{}"}


def _tex(text: str) -> str:
    """A text as LaTeX prints it."""
    if text.startswith("x "):
        return rf"$\times$ {_tex(text[2:])}"
    return "".join(TEX.get(letter, letter) for letter in text)


def _ratio(row: Figures, reference: str) -> str:
    if reference not in row.ratios:
        return ""
    mean, low, high = row.ratios[reference]
    return f"{mean:.2f}" + _range(
        None if low is None or high is None or row.runner == reference else (low, high), ".2f"
    )


def _range(ends: Sequence[float] | None, form: str) -> str:
    return "" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
