"""The pictures of a run: 7 inches wide for print, no legend over data, machine and versions below each."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from decodery.bench.colours import GROUND, INK, colour
from decodery.bench.figures import Figures
from decodery.bench.runners import is_peer

WIDTH = 7.0
"""Inches: the text of a page of two columns."""

PANELS = 4
"""Panels side by side."""

STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "hatch.color": "#ffffff",
    "hatch.linewidth": 0.7,
}


@dataclass(frozen=True)
class Told:
    """What stands around each picture: which run it is (above) and machine, model and versions (below)."""

    run: str
    caption: str

    def figure(self, title: str, height: float) -> Any:
        """An empty figure with these words."""
        figure = Figure(figsize=(WIDTH, height + 0.9), layout="constrained")
        words = [title, *textwrap.wrap(self.run, 96)]
        figure.suptitle("\n".join(words), x=0.01, ha="left", fontsize=9)
        figure.supxlabel("\n".join(textwrap.wrap(self.caption, 150)), x=0.01, ha="left", fontsize=6)
        return figure


@matplotlib.rc_context(STYLE)
def speeds(rows: Sequence[Figures], told: Told) -> Any:
    """Tokens a second, with the interval where it is known, and tokens a forward of each runner."""
    rows = sorted(rows, key=lambda row: row.speed)
    figure = told.figure("Tokens a second and tokens a forward", 0.22 * len(rows) + 0.4)
    left, right = figure.subplots(1, 2, sharey=True)
    ranges = [row.speed_range or (row.speed, row.speed) for row in rows]
    errors = [[row.speed - low for row, (low, _) in zip(rows, ranges, strict=True)]]
    errors.append([high - row.speed for row, (_, high) in zip(rows, ranges, strict=True)])
    _bars(left, rows, [row.speed for row in rows], [f"{row.speed:.1f}" for row in rows], errors)
    left.set_xlabel("tokens a second (decoding)")
    labels = [f"{row.tokens_per_forward:.2f}" if row.tokens_per_forward else "not told" for row in rows]
    _bars(right, rows, [row.tokens_per_forward or 0 for row in rows], labels)
    right.set_xlabel("tokens a forward")
    return figure


@matplotlib.rc_context(STYLE)
def categories(rows: Sequence[Figures], reference: str, told: Told) -> Any:
    """Speed against a reference: the mean over the categories with its interval, then a panel for each category."""
    rows = [row for row in rows if reference in row.categories and row.runner != reference][::-1]
    names = list(rows[0].categories[reference])
    panels = ["mean", *names] if len(names) > 1 else names
    lines = ceil(len(panels) / PANELS)
    figure = told.figure(f"Speed against {reference}", lines * (0.19 * len(rows) + 0.42))
    grid = figure.subplots(lines, min(PANELS, len(panels)), sharex=True, sharey=True, squeeze=False).flatten()
    for axes, name in zip(grid, panels, strict=False):
        ratios = [_part(row, reference, name) for row in rows]
        means = [mean for mean, _, _ in ratios]
        errors = [[mean - low for mean, low, _ in ratios], [high - mean for mean, _, high in ratios]]
        _bars(axes, rows, means, [f"{mean:.2f}" for mean in means], errors if name == "mean" else None)
        axes.axvline(1, color=INK, linewidth=0.6, alpha=0.5, zorder=0)
        axes.set_title(name)
        axes.tick_params(labelbottom=True)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


@matplotlib.rc_context(STYLE)
def costs(curves: Mapping[str, Mapping[Any, float]], told: Told) -> Any:
    """Milliseconds of a forward by its tokens, a line for each backend with its name at the end."""
    figure = told.figure("Cost of a forward", 2.0)
    axes = figure.subplots()
    for name, curve in curves.items():
        sizes, times = [int(n) for n in curve], list(curve.values())
        axes.plot(sizes, times, marker="o", markersize=3, color=colour(name))
        axes.annotate(name, (sizes[-1], times[-1]), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_xlabel("tokens in a forward")
    axes.set_ylabel("milliseconds")
    axes.set_ylim(bottom=0)
    return figure


def svg(figure: Any) -> str:
    """The picture as SVG, its letters as shapes."""
    return _svg(figure, "path")


def inline(figure: Any) -> str:
    """The picture as SVG for a page: on the page's ground, in its colour of text, its text as text."""
    text = _svg(figure, "none", transparent=True)
    return text[text.index("<svg") :].replace(INK, "currentColor").replace(GROUND, "var(--ground)")


def pdf(figure: Any) -> bytes:
    """The picture as PDF, its text as text."""
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        return _binary(figure, format="pdf", metadata={"CreationDate": None})


def png(figure: Any) -> bytes:
    """The picture as PNG."""
    return _binary(figure, format="png", dpi=150, metadata={"Software": None})


def _svg(figure: Any, letters: Any, **options: Any) -> str:
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": letters, "svg.hashsalt": "decodery"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None}, **options)
    return text.getvalue()


def _binary(figure: Any, **options: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, bbox_inches="tight", **options)
    return data.getvalue()


def _bars(
    axes: Any, rows: Sequence[Figures], widths: Sequence[float], labels: Sequence[str], errors: Any = None
) -> None:
    """A bar for each row in its colour, those of peers hatched, each with its label behind it."""
    bars = axes.barh(
        [row.runner for row in rows],
        widths,
        color=[colour(row.runner) for row in rows],
        hatch=["///" if is_peer(row.runner) else "" for row in rows],
        xerr=errors,
        error_kw={"ecolor": INK, "elinewidth": 0.8, "capsize": 1.5},
    )
    axes.bar_label(bars, labels, padding=3, fontsize=7, bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.5})
    axes.margins(x=0.18)


def _part(row: Figures, reference: str, name: str) -> tuple[float, float, float]:
    """A ratio and the ends of its interval, which only the mean has."""
    if name in row.categories[reference]:
        mean = row.categories[reference][name]
        return mean, mean, mean
    mean, low, high = row.ratios[reference]
    return mean, mean if low is None else low, mean if high is None else high
