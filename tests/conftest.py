"""Shared by all tests: where the shared data lies, the demo model, and the options of the law suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))))


# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Tests name what they test: plain decoding by torch where they name nothing, whatever the defaults are.
for option, value in (("BACKEND", "torch"), ("DRAFT", "none"), ("PLAN", "off")):
    os.environ.setdefault(f"DECODERY_{option}", value)

pytest_plugins = ["decodery.laws.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/laws/golden.txt instead of checking it")


@pytest.fixture(scope="session", autouse=True)
def repeatable() -> Iterator[None]:
    """A request without a seed has one here: what fails once fails again."""
    from decodery.core.chooser import Seeded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decodery.run.answer.Seeded", lambda *seed: Seeded(*(seed or (0,))))
        yield


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step takes any time: a planner is told by the test what things cost, not by a busy machine."""
    monkeypatch.setattr("decodery.core.stats.perf_counter", lambda: 0.0)
    monkeypatch.setattr("decodery.model.turn.perf_counter", lambda: 0.0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared prompts and schemas; ``DECODERY_DATA`` names another place."""
    path = Path(os.environ.get("DECODERY_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no data at {path}: set DECODERY_DATA; Spec-Bench is in github.com/hemingkx/Spec-Bench (data/)")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The demo model."""
    import decodery

    try:
        return decodery.load("smollm2", dtype="float32")
    except decodery.DecoderyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def untouched(smollm2: Any) -> Any:
    """The demo model's network as transformers loads it, without our Linear layers."""
    import torch
    from transformers import AutoModelForCausalLM

    import decodery

    return AutoModelForCausalLM.from_pretrained(decodery.resolve("smollm2"), dtype=torch.float32).eval()
