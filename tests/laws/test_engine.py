"""Parts together: which pairs are not exact is a golden file, and the array of cases covers every pair that fits.

The cases themselves are enumerated by ``decodery.laws`` (`make laws`). `pytest tests/laws --update-golden` writes the file
anew and `make docs` the tables in docs/composition.md; the diff shows what got better or worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from decodery.core.errors import PartsClash
from decodery.laws.cases import Case, Fits, covering, drawn, factors
from decodery.laws.specimens import WARM, guide_sets, specimens
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe

GOLDEN = Path(__file__).parent / "golden.txt"
Choice = tuple[str, str]
"""A role and what stands there."""


def choices() -> dict[str, dict[str, Any]]:
    """All specimens of the package by role; of guides the sets that are examined."""
    found = {role: dict(specimens(role, outsiders=False)) for role in ("draft", "verify", "constrain", "search")}
    return {"draft": found["draft"], "verify": found["verify"], "guide": dict(guide_sets(False)), **found}


def not_exact() -> Iterator[str]:
    """One line for each pair of parts that is declared lossy or refused."""
    named, toy = choices(), ToyModel()
    for first, second in combinations(named, 2):
        for one, part in named[first].items():
            for two, other in named[second].items():
                pair = {first: part, second: other}
                search = pair.get("search")
                if search is not None and search.samples:
                    pair.setdefault("guide", WARM)
                outcome = ""
                spelled = replace(toy, letters=pair["constrain"].letters) if "constrain" in pair else toy
                try:
                    if not build(Recipe.of(**pair), spelled).lossless:
                        outcome = "lossy"
                except PartsClash as clash:
                    outcome = f"refused: {clash}"
                if outcome:
                    yield f"{first} {one} | {second} {two} | {outcome}"


def test_what_is_not_exact_is_written_down(request: Any, record_property: Any) -> None:
    """A pair that got worse, or is new, fails until the file is written anew."""
    lines = sorted(not_exact())
    text = "\n".join(lines) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(text)
    was = set(GOLDEN.read_text().splitlines()) if GOLDEN.exists() else set()
    more, less = sorted({*lines} - was), sorted(was - {*lines})
    assert not more, f"not exact any more (pytest tests/laws --update-golden, and look at the diff): {more[:5]}"
    assert not less, f"better than written down (pytest tests/laws --update-golden): {less[:5]}"
    record_property("pairs refused", sum("refused" in line for line in lines))
    record_property("pairs declared lossy", sum(line.endswith("lossy") for line in lines))


def test_every_pair_that_fits_stands_in_a_case() -> None:
    """Whatever was proven for a pair in the full product is still proven for it, batch, plan and thinning included."""
    every = factors(outsiders=False)
    fits = Fits(every)
    cases = covering(every, fits)
    names = [[name for name, _ in choice] for choice in every]
    seen = {pair for case in cases for pair in combinations(enumerate(case), 2)}
    for i, j in combinations(range(len(names)), 2):
        for a in names[i]:
            for b in names[j]:
                pair = ((i, a), (j, b))
                assert (pair in seen) == (not fits.why_not(*pair)), pair
    assert len(cases) < 1.3 * len(names[0]) * len(names[2])
    assert all(not fits.why_not(*enumerate(case)) for case in cases)
    assert covering(every, fits) == cases


def test_cases_are_drawn_by_the_seed_and_can_be_written_down() -> None:
    every = factors(outsiders=False)
    fits = Fits(every)
    first, other = drawn(every, fits, 60, "2026-01-01"), drawn(every, fits, 60, "2026-01-02")
    assert first == drawn(every, fits, 60, "2026-01-01")
    assert len({*first, *other}) > 100
    for case in first:
        assert Case.read(str(case)) == case
        assert str(case) in case.repeat()
