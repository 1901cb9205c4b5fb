"""What pytest learns for the laws: ``--part``, ``--case`` and the line of figures at the end.

It is declared as an entry point of pytest, so it is loaded wherever both are installed, and imports nothing else.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``pytest --pyargs decodery.laws``."""
    group = parser.getgroup("decodery", "laws of decoding parts (--pyargs decodery.laws)")
    group.addoption(
        "--part",
        action="append",
        default=[],
        metavar="PART",
        help="examine this part only: ngram, guide/top-p or pkg.mod:Mine; may be given several times",
    )
    group.addoption(
        "--case",
        action="append",
        default=[],
        metavar="CASE",
        help="enumerate this combination only, as a failure names it",
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much was proven."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            counts[name] += value if isinstance(value, int) else 0
    if any(counts.values()):
        terminalreporter.write_line("laws: " + ", ".join(f"{value} {name}" for name, value in sorted(counts.items())))
