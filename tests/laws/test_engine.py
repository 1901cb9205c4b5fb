"""The whole engine is exact: every draft x verify x guide x constraint that the builder allows, and in a batch.

What it refuses is a golden file, so an incompatibility is a documented fact. `pytest tests/laws --update-golden` writes
the files anew and `make docs` the table in docs/composition.md; the diff shows what got better or worse.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decodery.core.errors import PartsClash
from decodery.core.roles import Guide, Part
from decodery.guide.temperature import Temperature
from decodery.model.toy import ToyModel
from decodery.run.build import build

from .exact import Count, produced, recipe, specimens, variation, wanted

GOLDEN = Path(__file__).parent / "golden"
WARM = Temperature(0.9)
DRAFTS = dict(specimens("draft"))
TOYS = {"open": ToyModel(), "ends": ToyModel(seed=4, eos=frozenset({2}))}


DEFAULTS = {"residual", "greedy"}
"""What the builder takes where no verifier is named: enumerated under every guide. A verifier knows a guide only by the
law it leaves, so the others are enumerated under one guide for each kind of law."""
KINDS = {
    "greedy": "one-hot",
    "temperature:t=0.9": "nowhere zero",
    "top-p:p=0.7": "with zeros",
    "presence:penalty=0.8 + temperature": "of the path before each row",
    "cfg:negative=b + temperature": "of two sessions",
}


def guides() -> list[tuple[str, list[Part]]]:
    """None, each alone, and each that does not sample with a temperature, so that its law is not one-hot."""
    found: list[tuple[str, list[Part]]] = [("greedy", []), ("temperature:t=0.9", [WARM])]
    for name, guide in specimens("guide"):
        assert isinstance(guide, Guide)
        found.append((name, [guide]))
        if not guide.samples:
            found.append((f"{name} + temperature", [guide, WARM]))
    return found


@pytest.mark.parametrize("draft", DRAFTS)
def test_law(draft: str, request: Any, record_property: Any) -> None:
    """Total variation from the definition is below 1e-9 in every case that is neither refused nor declared lossy.

    A lossy case must still keep to what the definition allows: guides and constraints hold."""
    outcome: dict[str, str] = {}
    count = Count()
    for verify_name, verify in specimens("verify"):
        for guide_name, guide in guides():
            if verify_name not in DEFAULTS and guide_name not in KINDS:
                continue
            for constrain_name, constrain in specimens("constrain"):
                case = f"{verify_name} | {guide_name} | {constrain_name}"
                try:
                    distances = []
                    for toy in TOYS.values():
                        built = build(recipe(DRAFTS[draft], verify, guide, constrain), toy)
                        want, have = wanted(toy, built), produced(toy, built, count)
                        distances.append(variation(want, have))
                        assert have.keys() <= {words for words, chance in want.items() if chance > 0}, case
                    right = "exact" if max(distances) < 1e-9 else f"WRONG by {max(distances):.1e}"
                    outcome[case] = right if built.lossless else "lossy"
                except PartsClash as clash:
                    outcome[case] = f"refused: {clash}"
    wrong = {case: result for case, result in outcome.items() if result.startswith("WRONG")}
    assert not wrong
    if draft != "none":
        assert count.drafted
        assert count.accepted
        assert count.refused
        assert count.ghosts, "the constraints forbade nothing that was drafted"
    record_property("exact cases", sum(result == "exact" for result in outcome.values()) * len(TOYS))
    record_property("lossy cases", sum(result == "lossy" for result in outcome.values()) * len(TOYS))
    record_property("refused combinations", sum(result.startswith("refused") for result in outcome.values()))
    golden(draft, outcome, request.config.getoption("--update-golden"))


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("batch", [2, 3])
def test_law_in_a_batch(draft: str, batch: int, record_property: Any) -> None:
    """A row's law is its own, whatever runs beside it over the same arena."""
    for toy in TOYS.values():
        built = build(recipe(DRAFTS[draft], None, [WARM]), toy)
        assert variation(wanted(toy, built), produced(toy, built, Count(), batch=batch)) < 1e-9
        record_property("exact cases", 1)


def golden(draft: str, outcome: dict[str, str], update: bool) -> None:
    """Compare with the committed outcome; a case that got worse, or is new, fails until the file is written anew."""
    path = GOLDEN / f"{draft.replace(':', '-').replace('=', '').replace(',', '-')}.json"
    text = json.dumps({"draft": draft, "cases": outcome}, indent=1) + "\n"
    if update:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing: run pytest tests/laws --update-golden and commit it"
    assert text == path.read_text(), f"{path.name} differs: run pytest tests/laws --update-golden and look at the diff"
