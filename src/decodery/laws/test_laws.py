"""The laws as tests: each part by itself, then parts together. See the package's docstring for the command."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from decodery.core.errors import DecoderyError
from decodery.laws import constrain, draft, guide, search, verify
from decodery.laws.cases import Case, Factors, Fits, around, covering, drawn, factors
from decodery.laws.engine import Count, examine
from decodery.laws.specimens import EXAMINED, TOYS, Specimen, binding, chosen, claim, specimens

LAWS: dict[str, tuple[Callable[[Any], None], ...]] = {
    "draft": (binding, *draft.LAWS),
    "verify": (binding, *verify.LAWS),
    "guide": (binding, *guide.LAWS),
    "constrain": (binding, *constrain.LAWS),
    "search": (binding, *search.LAWS),
}
GROUPS, EACH = 12, 25
"""How many groups of cases are drawn, and how many cases each has."""
Group = tuple[Factors, list[Case], bool]
"""What may stand in the cases, the cases, and whether they must have put drafts to the test."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each part and law, and one for each group of cases."""
    config = metafunc.config
    try:
        if "specimen" in metafunc.fixturenames:
            pairs = (
                [] if config.getoption("--case") else [(one, law) for one in _parts(config) for law in LAWS[one.role]]
            )
            names = [f"{one.role}-{one.name}-{law.__name__}" for one, law in pairs]
            metafunc.parametrize(("specimen", "law"), pairs, ids=names)
        if "group" in metafunc.fixturenames:
            groups = dict(_groups(config))
            metafunc.parametrize("group", groups.values(), ids=groups)
    except DecoderyError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Toys are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_alone(specimen: Specimen, law: Callable[[Any], None], record_property: Any) -> None:
    """A part keeps a law of its role."""
    law(specimen.part)
    record_property("laws of single parts", 1)


def test_together(group: Group, record_property: Any) -> None:
    """What the engine emits has the law of the definition, to a billionth, on two toys."""
    choices, cases, thorough = group
    count, exact = Count(), 0
    for case in cases:
        exact += examine(case, choices, count)
    if thorough:
        obeys = all(dict(choices[0])[case.draft].obeys for case in cases)
        tried = count.drafted, count.accepted, count.refused, count.ghosts or obeys
        claim(all(tried), f"drafted, accepted, refused, ghosts: {tried}; each should have come")
    record_property("exact cases", exact * len(TOYS))
    record_property("lossy cases", (len(cases) - exact) * len(TOYS))


def _parts(config: pytest.Config) -> list[Specimen]:
    """What is examined: the parts named, or all."""
    if named := config.getoption("--part"):
        return [one for text in named for one in chosen(text)]
    return [Specimen(role, name, part) for role in EXAMINED for name, part in specimens(role)]


def _groups(config: pytest.Config) -> Iterator[tuple[str, Group]]:
    """The cases named; or those around the parts named; or every pair, by drafter, and some cases drawn by the date."""
    if texts := config.getoption("--case"):
        yield "named", (factors(), [Case.read(text) for text in texts], False)
    elif config.getoption("--part"):
        for one in _parts(config):
            if one.role in Case._fields:
                choices, entry = around(one)
                yield f"{one.role}-{one.name}", (choices, covering(choices, Fits(choices), entry), False)
    else:
        every, pairs, some, seed = _all()
        for name, part in every[0]:
            yield f"pairs-{name}", (every, [case for case in pairs if case.draft == name], bool(part.emits))
        for i in range(GROUPS):
            yield f"drawn-{seed}-{i}", (every, some[i::GROUPS], False)


@cache
def _all() -> tuple[Factors, list[Case], list[Case], str]:
    """All choices, cases for every pair of them, and cases drawn by today's date (or ``DECODERY_LAWS_SEED``)."""
    seed = os.environ.get("DECODERY_LAWS_SEED") or datetime.datetime.now(datetime.UTC).date().isoformat()
    choices = factors()
    fits = Fits(choices)
    return choices, covering(choices, fits), drawn(choices, fits, GROUPS * EACH, seed), seed
