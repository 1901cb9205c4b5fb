"""Verdicts of engines on instances, token by token, and the time of their masks; no network runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from decodery.bench.json_data import Case
from decodery.bench.json_engines import Engine, Follower


@dataclass
class Verdicts:
    """What an engine said: schemas compiled and refused, instances judged rightly and wrongly, seconds of each mask."""

    counts: Counter[str] = field(default_factory=Counter)
    compile: list[float] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)
    wrong: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """Group, schema, instance and whether it is valid, of those judged wrongly."""
    refused: Counter[str] = field(default_factory=Counter)
    forced: int = 0
    """Tokens of all instances before which only one was allowed."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the result file: times in milliseconds."""
        return {
            **self.counts,
            "compile_ms": quantiles(self.compile),
            "mask_ms": quantiles(self.masks),
            "tokens": len(self.masks),
            "forced_share": round(self.forced / max(len(self.masks), 1), 4),
            "refused_for": dict(self.refused.most_common(12)),
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and worst, in milliseconds."""
    ranked = sorted(seconds) or [0.0]
    return {
        name: round(1e3 * ranked[min(int(share * len(ranked)), len(ranked) - 1)], 4)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))
    }


def judge(engine: Engine, tokens: Callable[[str], list[int]], cases: Iterable[Case], seconds: float = 1e9) -> Verdicts:
    """Let an engine judge all instances, as Python writes them; what is left after ``seconds`` is not looked at."""
    found, until = Verdicts(), perf_counter() + seconds
    for case in cases:
        if perf_counter() > until:
            found.counts["not looked at"] += 1
            continue
        began = perf_counter()
        try:
            if isinstance(case.schema, bool):
                raise ValueError("a schema that is true or false")
            engine(case.schema)
        except ValueError as error:
            found.counts["refused"] += 1
            found.refused[_short(str(error))] += 1
            continue
        finally:
            found.compile.append(perf_counter() - began)
        found.counts["compiled"] += 1
        for instance in case.instances:
            words = tokens(json.dumps(instance.value, ensure_ascii=False))
            right = _accepts(engine(case.schema), words, found) == instance.valid
            kind = "valid" if instance.valid else "invalid"
            found.counts[f"{kind} {'right' if right else 'wrong'}"] += 1
            if not right:
                about = instance.about or json.dumps(instance.value, ensure_ascii=False)[:120]
                found.wrong.append((case.group, case.name, about, instance.valid))
    return found


def _accepts(follower: Follower, tokens: Sequence[int], found: Verdicts) -> bool:
    try:
        for token in tokens:
            found.forced += follower.forced()
            began = perf_counter()
            follower.mask()
            read = follower.read(token)
            found.masks.append(perf_counter() - began)
            if not read:
                return False
        return follower.may_end()
    except ValueError:  # a grammar that grew past the engine's limits
        return False


def _short(error: str) -> str:
    """An error without its place, so that alike ones are counted together."""
    return error.rpartition("#")[2].partition(": ")[2][:70] or error[:70]
