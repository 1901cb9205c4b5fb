"""Several drafters on the same prompts, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple, Unpack

from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.stats import Stats
from decodery.model.model import Model
from decodery.run.api import is_batch, stream
from decodery.run.options import Options, recipe_from
from decodery.run.output import Output
from decodery.run.recipe import Recipe, recipe_roles
from decodery.run.spec import Spec, part, specs, text_of

TIE = 1e-3
"""Two logits closer than this may change places between a pass of one row and a pass of several (float rounding)."""
METHODS = ("none", "ngram", "recycling", "suffix", "auto")
"""The drafters worth comparing that need nothing but the model."""


class Line(NamedTuple):
    """What came of a method; ``speedup``: times as fast as plain decoding, ``identical``: None where nothing was judged."""

    method: str
    tokens: int = 0
    tokens_per_second: float = 0.0
    speedup: float = 0.0
    tokens_per_forward: float = 0.0
    drafted: int = 0
    acceptance: float = 0.0
    identical: bool | None = None
    note: str = ""
    slowest: float = 0.0
    fastest: float = 0.0
    """Of several rounds, in tokens per second."""

    def cells(self) -> list[str]:
        """For people."""
        if not self.tokens:
            return [self.method, "", "", "", "", self.note or "..."]
        accepted = f"{self.acceptance:.0%} of {self.drafted}" if self.drafted else ""
        same = {True: "yes", False: "NO", None: ""}[self.identical] + (f" ({self.note})" if self.note else "")
        ratio = f"{self.speedup:.2f}x" if self.speedup else ""
        span = f" [{self.slowest:.0f}, {self.fastest:.0f}]" if self.slowest < self.fastest else ""
        return [
            self.method,
            f"{self.tokens_per_second:.1f}{span}",
            ratio,
            f"{self.tokens_per_forward:.2f}",
            accepted,
            same,
        ]


class Comparison(list[Line]):
    """A line for each method, plain decoding first. It shows itself as a table; its lines are named tuples."""

    titles = ("method", "tok/s", "vs plain", "tokens/forward", "accepted", "identical")

    def __str__(self) -> str:
        cells = [list(self.titles), *(line.cells() for line in self)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.titles))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in line.cells()) for line in self]
        head = "".join(f"<th>{title}</th>" for title in self.titles)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def to_pandas(self) -> Any:
        """A ``DataFrame`` with a column for each field of ``Line``. Raises ``DecoderyError`` where pandas is missing."""
        try:
            import pandas
        except ImportError as error:
            raise DecoderyError(
                "to_pandas needs pandas: pip install pandas. The lines are named tuples already"
            ) from error
        return pandas.DataFrame([line._asdict() for line in self], columns=list(Line._fields))


@dataclass
class Row:
    """One method's runs: ``rounds`` holds for each round the figures of all prompts; the median speed counts."""

    draft: str
    spec: Spec
    rounds: list[list[Stats]] = field(default_factory=list)
    identical: bool | None = None
    note: str = ""

    @property
    def speeds(self) -> list[float]:
        """Tokens per second of each round."""
        return [_speed(stats) for stats in self.rounds]

    def line(self, plain: float) -> Line:
        """The row as it is told; ``plain``: the speed of plain decoding."""
        if not self.rounds:
            return Line(self.draft, note=self.note)
        last, speed = sum(self.rounds[-1], Stats()), statistics.median(self.speeds)
        figures = (last.tokens_per_forward, last.drafted, last.acceptance)
        ratio, span = speed / plain if plain else 0.0, (min(self.speeds), max(self.speeds))
        return Line(self.draft, last.tokens, speed, ratio, *figures, self.identical, self.note, *span)

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        stats = sum(self.rounds[-1], Stats()).as_dict() if self.rounds else {}
        return {"draft": self.draft, "speeds": self.speeds, "identical": self.identical, "note": self.note, **stats}


def compare(
    model: Model,
    prompts: Any,
    methods: str | Sequence[Spec] = METHODS,
    *,
    rounds: int = 1,
    **options: Unpack[Options],
) -> Comparison:
    """Decode prompts by plain decoding and by each method, in turns, and compare speed, tokens per forward and answers.

    Args:
        prompts: one or several, of whatever kind ``decode`` takes.
        methods: drafters, as specs or objects, or as one text separated by commas. A spec begins anew with each answer, an
            object remembers what it has seen.
        rounds: repetitions; the median speed counts.
        options: those of ``decode`` but for ``draft`` and ``session``; they hold for all methods.

    Raises ``DecoderyError`` before anything is decoded where a method or an option is none; a method that the model or the
    other parts cannot take has a note instead of figures.
    """
    if given := [name for name in ("draft", "session", "recipe") if options.get(name) is not None]:
        hint = "methods= names the drafters" if given == ["draft"] else "each method has its own drafter and cache"
        raise DecoderyError(f"compare takes no {given[0]}=: {hint}")
    found: list[Row] = []
    for rows in compared(model, prompts, methods, rounds, recipe_from(options), **options):
        found = rows
    return table(found)


def table(rows: Sequence[Row]) -> Comparison:
    """What there is to tell of the rows so far."""
    plain = statistics.median(rows[0].speeds) if rows[0].rounds else 0.0
    return Comparison(row.line(plain) for row in rows)


def compared(
    model: Model, prompts: Any, methods: str | Sequence[Spec], rounds: int, others: Recipe, **options: Any
) -> Iterator[list[Row]]:
    """The rows of a comparison as they fill; ``others``: the parts that all methods share.

    ``identical`` is judged token by token against plain decoding; where they part at a tie of logits below ``TIE``, the
    row says yes and the note names the tie. Where a guide samples, answers are draws and nothing is judged.
    """
    if not isinstance(rounds, int) or rounds < 1:
        raise DecoderyError(f"rounds is a whole number from 1 on, not {rounds!r}")
    rows = _rows(methods)
    asked = list(prompts) if is_batch(prompts) else [prompts]
    more = {name: value for name, value in options.items() if name not in recipe_roles()}
    greedy = not any(guide.samples for guide in others.guide) and more.get("sampling") is None
    yield rows
    warm = {name: value for name, value in more.items() if name not in ("sampling", "max_new_tokens")}
    stream(model, asked[0], max_new_tokens=4, **warm).finish()
    references: list[tuple[list[int], list[float]]] = []
    for _ in range(rounds):
        for row in rows:
            try:
                recipe = others.replace(draft=row.spec)
                runs = [_run(model, prompt, recipe, more) for prompt in asked]
            except PartsClash as clash:
                row.note = str(clash)
                yield rows
                continue
            if row is rows[0]:
                references = [(output.tokens, gaps) for output, gaps in runs]
            row.rounds.append([output.stats for output, _ in runs])
            if greedy:
                told = [judge(output.tokens, *known) for (output, _), known in zip(runs, references, strict=True)]
                row.identical = all(same for same, _ in told)
                row.note = next((note for same, note in sorted(told) if note), "")
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


def _rows(methods: str | Sequence[Spec]) -> list[Row]:
    """A row for each method, plain decoding first. Raises ``DecoderyError`` for what is no drafter."""
    named: list[Any] = specs(methods) if isinstance(methods, str) else list(methods)
    if not named:
        raise DecoderyError("methods= names no drafter; e.g. methods=['ngram', 'suffix']")
    found: dict[str, Spec] = {}
    for spec in ["none", *named]:
        made = part("draft", spec)
        found.setdefault(spec if isinstance(spec, str) else text_of(made), spec)
    return [Row(name, spec) for name, spec in found.items()]


def _run(model: Model, prompt: Any, recipe: Recipe, options: dict[str, Any]) -> tuple[Output, list[float]]:
    pieces = stream(model, prompt, **{"seed": 0, **options, "recipe": recipe})
    gaps = []
    for piece in pieces:
        if piece.step is not None:
            best = piece.step.p.logits[0].topk(2).values
            gaps.append(float(best[0] - best[1]))
    return pieces.output, gaps


def _speed(stats: Sequence[Stats]) -> float:
    """Tokens per second of several answers, as ``Stats.tokens_per_second`` has it for one."""
    seconds = sum(one.seconds - one.first for one in stats)
    if seconds <= 0:
        return sum(one.tokens for one in stats) / max(sum(one.seconds for one in stats), 1e-9)
    return sum(max(one.tokens - 1, 0) for one in stats) / seconds
