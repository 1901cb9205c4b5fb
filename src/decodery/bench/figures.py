"""Records folded into figures.

Speeds are of decoding: tokens after the first burst by the seconds they took; the prompt's time is in the time to first
token. A ratio is taken in each category and averaged over the categories. Acceptance leaves the verifier's own token
out, tokens per forward counts it in. Intervals hold 95 % of a bootstrap: prompts are drawn again within their category,
with all turns of a conversation together, and within a prompt its repetitions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from decodery.bench.driver import Record
from decodery.bench.runners import PLAIN
from decodery.inspect.compare import judge

RESAMPLES = 1000

Ratio = tuple[float, float | None, float | None]
"""The mean over categories, and the ends of its interval; None where a category was measured only once."""


@dataclass
class Figures:
    """What one runner did.

    ``speed``, ``whole``: tokens a second, without and with the prompt's time; ``first``: median seconds to the first
    token; ``p50``, ``p95``: milliseconds a token, a burst's tokens sharing its time; ``at``: share of forwards that
    accept at least so many drafts; ``same``, ``ties``: of so many ``answers`` (turns times repetitions); ``ratios``: against
    each reference; ``categories``: reference -> category -> ratio; ``speed_range``: the interval of the speed;
    ``repetitions``: the speed of each.
    """

    runner: str
    prompts: int
    tokens: int
    speed: float
    whole: float
    first: float
    p50: float
    p95: float
    tokens_per_forward: float | None
    acceptance: float | None
    draft_share: float | None
    draft_ms: float | None
    at: list[float]
    same: int
    ties: int
    right: float | None
    ratios: dict[str, Ratio] = field(default_factory=dict)
    categories: dict[str, dict[str, float]] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)
    forwards: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    speed_range: tuple[float, float] | None = None
    repetitions: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = self.answers or self.prompts

    def as_dict(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return asdict(self)


def figures(records: Sequence[Record], references: Sequence[str]) -> list[Figures]:
    """One entry for each runner, in the order they appear; only turns that every runner has answered count."""
    by_runner: dict[str, dict[tuple[str, int, int], Record]] = defaultdict(dict)
    for record in records:
        by_runner[record.runner][record.key[1:]] = record
    common = set.intersection(*(set(turns) for turns in by_runner.values())) if by_runner else set()
    kept = {runner: [r for key, r in turns.items() if key in common] for runner, turns in by_runner.items()}
    if not common:
        return []
    plain = {r.key[1:]: r for r in kept[PLAIN]}
    found = [_fold(runner, mine, plain) for runner, mine in kept.items()]
    for entry in found:
        for reference in references:
            if reference in kept:
                mean, spread = _ratio(kept[entry.runner], kept[reference])
                entry.ratios[reference], entry.categories[reference] = mean, spread
    return found


def _fold(runner: str, records: list[Record], plain: Mapping[tuple[str, int, int], Record]) -> Figures:
    stats = [r.stats for r in records if r.stats]
    per_token = [ms for r in records for ms in _per_token(r)] or [float("nan")]
    verdicts = [judge(r.tokens, plain[r.key[1:]].tokens, plain[r.key[1:]].gaps) for r in records]
    phases: Counter[str] = Counter()
    accepted: Counter[int] = Counter()
    for entry in stats:
        phases.update(entry["phases"])
        accepted.update({int(depth): n for depth, n in entry["accepted_at"].items()})
    forwards = sum(r.forwards or 0 for r in records)
    drafted = sum(entry["drafted"] for entry in stats)
    known = all(r.forwards for r in records)
    graded = [r.right for r in records if r.right is not None]
    return Figures(
        runner,
        prompts=len({(r.task, r.turn) for r in records}),
        tokens=sum(len(r.tokens) for r in records),
        speed=_speed(records),
        whole=sum(len(r.tokens) for r in records) / max(sum(r.marks[-1][0] for r in records if r.marks), 1e-9),
        first=float(np.median([r.marks[0][0] for r in records if r.marks])),
        p50=float(np.percentile(per_token, 50)),
        p95=float(np.percentile(per_token, 95)),
        tokens_per_forward=sum(len(r.tokens) for r in records) / forwards if known else None,
        acceptance=sum(accepted.values()) / drafted if drafted else None,
        draft_share=phases["draft"] / max(sum(phases.values()), 1e-9) if drafted else None,
        draft_ms=1e3 * phases["draft"] / forwards if drafted else None,
        at=[round(accepted[depth] / forwards, 4) for depth in range(1, max(accepted, default=0) + 1)],
        same=sum(same for same, _ in verdicts),
        ties=sum(same and bool(note) for same, note in verdicts),
        right=sum(graded) / len(graded) if graded else None,
        speeds={name: _speed(group) for name, group in _grouped(records).items()},
        forwards={
            name: sum(len(r.tokens) for r in group) / sum(r.forwards or 0 for r in group)
            for name, group in _grouped(records).items()
            if known
        },
        answers=len(records),
        speed_range=_speed_range(records),
        repetitions=[
            _speed([r for r in records if r.repetition == n]) for n in sorted({r.repetition for r in records})
        ],
    )


def _ratio(mine: list[Record], theirs: list[Record]) -> tuple[Ratio, dict[str, float]]:
    at = {r.key[1:]: r for r in theirs}
    parts = [_parts(group, lambda r: (*_work(r), *_work(at[r.key[1:]]))) for group in _grouped(mine).values()]
    means = dict(zip(_grouped(mine), (float(_share(part.sum((0, 1)))) for part in parts), strict=True))
    known = [mean for mean in means.values() if not np.isnan(mean)]  # an answer of one token has no speed
    low = high = None
    if known and (draws := _draws(parts)) is not None:
        low, high = map(float, np.nanpercentile(np.nanmean(_share(draws), 0), [2.5, 97.5]))
    return (sum(known) / len(known) if known else float("nan"), low, high), means


def _speed_range(records: list[Record]) -> tuple[float, float] | None:
    draws = _draws([_parts(group, _work) for group in _grouped(records).values()])
    if draws is None:
        return None
    tokens, seconds = draws.sum(0).T
    low, high = np.percentile(tokens / np.maximum(seconds, 1e-9), [2.5, 97.5])
    return float(low), float(high)


def _parts(records: Sequence[Record], work: Callable[[Record], tuple[float, ...]]) -> Any:
    """The work of prompts: ``[prompts, repetitions, what work tells]``, turns added up.

    Where a run was interrupted, repetitions that not every prompt has are left out.
    """
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for record in records:
        found[record.task][record.repetition] = found[record.task].get(record.repetition, 0) + np.array(work(record))
    fewest = min(len(repetitions) for repetitions in found.values())
    return np.array([[repetitions[n] for n in sorted(repetitions)[:fewest]] for repetitions in found.values()])


def _draws(parts: Sequence[Any]) -> Any | None:
    """The work of categories, drawn again: ``[categories, RESAMPLES, what work tells]``; None where one was measured once."""
    rng = np.random.default_rng(0)
    if any(part.shape[0] * part.shape[1] < 2 for part in parts):
        return None
    found = []
    for part in parts:
        prompts, repetitions, _ = part.shape
        one = rng.integers(prompts, size=(RESAMPLES, prompts, 1))
        within = rng.integers(repetitions, size=(RESAMPLES, prompts, repetitions))
        found.append(part[one, within].sum((1, 2)))
    return np.array(found)


def _share(work: Any) -> Any:
    """(tokens, seconds) of ours and theirs, in the last axis -> ratio of speeds."""
    tokens, seconds, their_tokens, their_seconds = np.moveaxis(work, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (tokens / seconds) / (their_tokens / their_seconds)


def _grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.category].append(record)
    return dict(sorted(groups.items()))


def _work(record: Record) -> tuple[float, float]:
    """Tokens after the first burst, and the seconds they took."""
    if not record.marks:
        return 0.0, 0.0
    (start, before), (end, after) = record.marks[0], record.marks[-1]
    return float(after - before), end - start


def _speed(records: Sequence[Record]) -> float:
    tokens, seconds = np.sum([_work(record) for record in records], 0)
    return float(tokens / max(seconds, 1e-9))


def _per_token(record: Record) -> list[float]:
    pairs = zip(record.marks, record.marks[1:], strict=False)
    return [1e3 * (end - start) / (n - m) for (start, m), (end, n) in pairs for _ in range(n - m)]
