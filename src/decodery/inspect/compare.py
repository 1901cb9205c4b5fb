"""Several drafters on one prompt, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.stats import Stats
from decodery.model.model import Model
from decodery.run.api import stream
from decodery.run.output import Output
from decodery.run.recipe import Recipe
from decodery.run.spec import specs

TIE = 1e-3
"""Two logits closer than this may change places between a pass of one row and a pass of several (float rounding)."""


@dataclass
class Row:
    """One drafter's runs; the median speed counts."""

    draft: str
    speeds: list[float] = field(default_factory=list)
    stats: Stats | None = None
    identical: bool | None = None
    note: str = ""
    plain: float = 0.0

    @property
    def speed(self) -> float:
        """Median tokens per second."""
        return statistics.median(self.speeds) if self.speeds else 0.0

    def cells(self) -> list[str]:
        """For the table."""
        if self.stats is None:
            return [self.draft, "", "", "", "", self.note or "..."]
        accepted = f"{self.stats.acceptance:.0%} of {self.stats.drafted}" if self.stats.drafted else ""
        same = {True: "yes", False: "NO", None: ""}[self.identical] + (f" ({self.note})" if self.note else "")
        ratio = f"{self.speed / self.plain:.2f}x" if self.plain else ""
        spread = f" [{min(self.speeds):.0f}, {max(self.speeds):.0f}]" if len(self.speeds) > 1 else ""
        return [self.draft, f"{self.speed:.1f}{spread}", ratio, f"{self.stats.tokens_per_forward:.2f}", accepted, same]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        stats = self.stats.as_dict() if self.stats else {}
        return {"draft": self.draft, "speeds": self.speeds, "identical": self.identical, "note": self.note, **stats}


def compare_drafts(
    model: Model,
    prompt: Any,
    drafts: str,
    max_new_tokens: int,
    rounds: int,
    plan: str = "off",
    others: Recipe | None = None,
) -> Iterator[list[Row]]:
    """Run plain decoding and each drafter, ``rounds`` times in turn; yields the rows as they fill.

    ``identical`` is judged token by token against plain decoding; where they part at a tie of logits below ``TIE``, the
    row says yes and the note names the tie. ``others``: the parts that all of them share; where a guide of these samples,
    answers are draws and nothing is judged.
    """
    if rounds < 1:
        raise DecoderyError(f"rounds must be at least 1, not {rounds}")
    others = others or Recipe.of()
    greedy, names = not any(guide.samples for guide in others.guide), specs(drafts)
    rows = [Row(name) for name in (names if "none" in names else ["none", *names])]
    rows.sort(key=lambda row: row.draft != "none")
    yield rows
    reference, gaps = [], []
    stream(model, prompt, max_new_tokens=4).finish()  # warms up
    for _ in range(rounds):
        for row in rows:
            try:
                recipe = others.replace(draft=row.draft)
                output, margin = _run(model, prompt, recipe, max_new_tokens, plan)
            except PartsClash as clash:
                row.note = str(clash)
                yield rows
                continue
            if row.draft == "none":
                reference, gaps = output.tokens, margin
            row.speeds.append(output.stats.tokens_per_second)
            row.stats, row.plain = output.stats, rows[0].speed
            if greedy:
                row.identical, row.note = judge(output.tokens, reference, gaps)
            yield rows


def judge(tokens: list[int], reference: list[int], gaps: list[float]) -> tuple[bool, str]:
    """Whether two greedy answers are the same, up to a float tie, and what to say about it.

    ``gaps``: the difference of the two best logits at each token of the reference.
    """
    for i, (ours, theirs) in enumerate(zip(tokens, reference, strict=False)):
        if ours != theirs:
            tie = gaps[i] < TIE
            return tie, f"{'tie' if tie else 'differs'} at token {i}, best two logits {gaps[i]:.1e} apart"
    return (True, "") if len(tokens) == len(reference) else (False, f"{len(tokens)} tokens instead of {len(reference)}")


def _run(model: Model, prompt: Any, recipe: Recipe, max_new_tokens: int, plan: str) -> tuple[Output, list[float]]:
    pieces = stream(model, prompt, recipe=recipe, max_new_tokens=max_new_tokens, plan=plan, seed=0)
    gaps = []
    for piece in pieces:
        if piece.step is not None:
            best = piece.step.p.logits[0].topk(2).values
            gaps.append(float(best[0] - best[1]))
    return pieces.output, gaps
