"""The pictures of a run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from decodery.bench.figures import Figures
from decodery.bench.runners import PEERS

OURS, THEIRS = "#2b6cb0", "#a0aec0"


def is_peer(name: str) -> bool:
    """Whether a runner is not one of our methods."""
    return name.partition("=")[0] in PEERS


def speeds(rows: Sequence[Figures]) -> Any:
    """Tokens a second and tokens a forward of each runner."""
    rows = sorted(rows, key=lambda row: row.speed)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.38 * len(rows) + 1.2), sharey=True)
    names = [row.runner for row in rows]
    colours = [THEIRS if is_peer(name) else OURS for name in names]
    left.bar_label(left.barh(names, [row.speed for row in rows], color=colours), fmt="%.1f", padding=3)
    left.set_xlabel("tokens a second (decoding)")
    right.bar_label(
        right.barh(names, [row.tokens_per_forward or 0 for row in rows], color=colours),
        [f"{row.tokens_per_forward:.2f}" if row.tokens_per_forward else "not told" for row in rows],
        padding=3,
    )
    right.set_xlabel("tokens a forward")
    return _plain(figure, left, right)


def categories(rows: Sequence[Figures], reference: str) -> Any:
    """Speed against a reference, by category."""
    rows = [row for row in rows if reference in row.categories and row.runner != reference]
    names = list(rows[0].categories[reference])
    figure, axes = plt.subplots(figsize=(10, 3.6))
    width = 0.84 / len(rows)
    for i, row in enumerate(rows):
        at = [x + (i - len(rows) / 2 + 0.5) * width for x in range(len(names))]
        heights = [row.categories[reference][name] for name in names]
        axes.bar(at, heights, width, label=row.runner, alpha=0.55 if is_peer(row.runner) else 1)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(f"speed against {reference}")
    axes.legend(fontsize=7, ncols=4, frameon=False)
    return _plain(figure, axes)


def costs(curves: Mapping[str, Mapping[Any, float]]) -> Any:
    """Milliseconds of a forward by its tokens, a line for each backend."""
    figure, axes = plt.subplots(figsize=(5, 3.2))
    for name, curve in curves.items():
        axes.plot([int(n) for n in curve], list(curve.values()), marker="o", label=name)
    axes.set_xlabel("tokens in a forward")
    axes.set_ylabel("milliseconds")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _plain(figure, axes)


def svg(figure: Any) -> str:
    """The picture as SVG text, to be put into a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight")
    return text.getvalue()[text.getvalue().index("<svg") :]


def png(figure: Any) -> bytes:
    """The picture as PNG."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130, bbox_inches="tight")
    return data.getvalue()


def _plain(figure: Any, *axes: Any) -> Any:
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure
