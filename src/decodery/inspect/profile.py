"""Where the time of an answer goes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from decodery.core.stats import Stats
from decodery.inspect.overhead import Timed
from decodery.model.model import Model
from decodery.model.slots import SlotArena
from decodery.plan.costs import cost_curve
from decodery.run.api import stream
from decodery.run.recipe import Recipe

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass
class Profile:
    """Seconds by phase after the first token, the whole answer's figures, and milliseconds of a forward by its size.

    Phases: "draft", "mask" (slots, positions, visibility), "forward" (the bare network), "constrain", "guide", "verify",
    "commit", and "text" (detokenising, stop strings, bookkeeping).
    """

    phases: dict[str, float]
    stats: Stats
    cost: dict[int, float]


def profile(model: Model, prompt: Any, recipe: Recipe, max_new_tokens: int = 128, plan: str = "off") -> Profile:
    """Answer a prompt and book every phase; ``cost`` is measured after it."""
    session = model.session(model.tokens(prompt))
    bare = None
    if isinstance(session.arena, SlotArena):
        session.arena.backend = bare = Timed(session.arena.backend)
    pieces = stream(model, prompt, recipe=recipe, max_new_tokens=max_new_tokens, plan=plan, session=session)
    phases: dict[str, float] = defaultdict(float)
    before = 0
    for piece in pieces:
        if piece.step is None:
            continue
        if pieces.output.stats.forwards > 1:
            for phase, seconds in piece.step.seconds.items():
                phases[phase] += seconds
        elif bare is not None:
            before = len(bare.seconds)
    stats = pieces.output.stats
    if bare is not None:
        network = sum(bare.seconds[before:])
        phases["mask"], phases["forward"] = phases["forward"] - network, network
    phases["text"] = stats.seconds - stats.first - sum(phases.values())
    order = ("draft", "mask", "forward", "constrain", "guide", "verify", "commit", "text")
    costs = {n: 1e3 * seconds for n, seconds in cost_curve(model, SIZES).table.items()}
    return Profile({name: max(phases[name], 0.0) for name in order if name in phases}, stats, costs)


def bars(values: dict[str, float], width: int = 40) -> list[tuple[str, str, float]]:
    """(name, bar, value) for each entry, the longest bar ``width`` characters wide."""
    most = max(values.values(), default=0.0) or 1.0
    return [(name, "█" * round(width * value / most) or "▏", value) for name, value in values.items()]
