"""Which combinations of parts are enumerated: every pair of choices stands in one at least, so cases grow linearly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

from decodery.core.errors import PartsClash
from decodery.core.values import Cap
from decodery.laws.specimens import Specimen, guide_sets, sets_with, specimens
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe

Factors = Sequence[Sequence[tuple[Any, Any]]]
"""For each entry of a case what may stand there: (name, what it stands for)."""


class Case(NamedTuple):
    """Parts by the names of their specimens, and how they run."""

    draft: str
    verify: str
    guide: str
    constrain: str
    batch: int = 1
    plan: bool = False
    thin: bool = False

    def __str__(self) -> str:
        return " | ".join((*self[:4], f"batch={self.batch}", *["plan"] * self.plan, *["thin"] * self.thin))

    @classmethod
    def read(cls, text: str) -> Case:
        """The inverse of ``str``."""
        draft, verify, guide, rest = text.split(" | ", 3)
        constrain, _, how = rest.rpartition(" | batch=")
        batch, *more = how.split(" | ")
        return cls(draft, verify, guide, constrain, int(batch), "plan" in more, "thin" in more)

    def repeat(self) -> str:
        """The command that runs this case alone."""
        return f"To repeat it: python -m pytest --pyargs decodery.laws --case '{self}'"


def factors(outsiders: bool = True) -> list[list[tuple[Any, Any]]]:
    """All that may stand in a case."""
    return [
        list(specimens("draft", outsiders)),
        list(specimens("verify", outsiders)),
        list(guide_sets(outsiders)),
        list(specimens("constrain", outsiders)),
        [(n, n) for n in (1, 2, 3)],
        [(False, False), (True, True)],
        [(False, False), (True, True)],
    ]


class Fits:
    """Whether parts fit each other, as the builder says; for two of them or for a whole case."""

    def __init__(self, choices: Factors) -> None:
        self._parts = [dict(choice) for choice in choices]
        self._models = {thin: ToyModel(can=frozenset({Cap.TREE})) if thin else ToyModel() for thin in (False, True)}
        self._known: dict[tuple[tuple[int, Any], ...], str] = {}

    def why_not(self, *chosen: tuple[int, Any]) -> str:
        """Why these choices, each (entry, name), are refused; empty where they fit."""
        if chosen not in self._known:
            at = dict(chosen)
            parts = {role: self._parts[i][at[i]] for i, role in enumerate(Case._fields[:4]) if i in at}
            model = self._models[at.get(6, False)]
            if "constrain" in parts:
                model = replace(model, letters=parts["constrain"].letters)
            try:
                build(Recipe.of(**parts), model)
                self._known[chosen] = ""
            except PartsClash as clash:
                self._known[chosen] = str(clash)
        return self._known[chosen]


def covering(choices: Factors, fits: Fits, only: int | None = None, seed: int = 0) -> list[Case]:
    """Cases in which every pair of choices that fits stands at least once: greedy, one case after another.

    ``only``: the pairs with a choice for this entry.
    """
    rng = random.Random(seed)
    names = [[name for name, _ in choice] for choice in choices]
    open_pairs = {
        ((i, a), (j, b))
        for i, j in combinations(range(len(names)), 2)
        if only in (None, i, j)
        for a in names[i]
        for b in names[j]
        if not fits.why_not((i, a), (j, b))
    }
    cases: list[Case] = []
    for pair in sorted(open_pairs, key=str):
        if pair not in open_pairs:
            continue
        case = _completed(dict(pair), names, open_pairs, fits, rng)
        if case is None:  # each two of them fit, but nothing goes with both
            open_pairs.discard(pair)
            continue
        cases.append(case)
        open_pairs.difference_update(combinations(enumerate(case), 2))
    return cases


def _completed(
    case: dict[int, Any], names: Sequence[Sequence[Any]], open_pairs: set[Any], fits: Fits, rng: random.Random
) -> Case | None:
    """These choices and, for each other entry, one that fits and closes most open pairs."""
    missing = [i for i in range(len(names)) if i not in case]
    if not missing:
        whole = tuple(case[i] for i in range(len(names)))
        return None if fits.why_not(*enumerate(whole)) else Case(*whole)
    entry = missing[0]

    def closes(name: Any) -> int:
        return sum(tuple(sorted([(entry, name), other])) in open_pairs for other in case.items())

    for name in sorted(rng.sample(names[entry], len(names[entry])), key=closes, reverse=True):
        if not any(fits.why_not(*sorted([(entry, name), other])) for other in case.items()):
            found = _completed({**case, entry: name}, names, open_pairs, fits, rng)
            if found is not None:
                return found
    return None


def drawn(choices: Factors, fits: Fits, count: int, seed: object) -> list[Case]:
    """So many different cases that fit, drawn by the seed."""
    rng = random.Random(str(seed))
    found: dict[Case, None] = {}
    for _ in range(20 * count):
        case = Case(*(rng.choice(choice)[0] for choice in choices))
        if len(found) < count and not fits.why_not(*enumerate(case)):
            found[case] = None
    return list(found)


def around(one: Specimen) -> tuple[list[list[tuple[Any, Any]]], int]:
    """The choices with this part alone in its entry (and that entry): what enumerates it beside all others."""
    choices, entry = factors(), Case._fields.index(one.role)
    choices[entry] = list(sets_with(one.name, one.part)) if one.role == "guide" else [(one.name, one.part)]
    return choices, entry
