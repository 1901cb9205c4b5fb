"""A whole benchmark: load the runners, time them, publish."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decodery.bench.driver import Bench
from decodery.bench.figures import Figures
from decodery.bench.runners import ALL, PLAIN, Runner, installed, methods, peer, peers_fit
from decodery.bench.suites import Task
from decodery.core.errors import BadModel, DecoderyError
from decodery.inspect.doctor import machine
from decodery.model.model import Model
from decodery.plan.costs import cost_curve
from decodery.run.spec import specs

SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Choice:
    """What to run; all of it must agree for an interrupted run to go on."""

    suite: str
    model: str = "smollm2"
    methods: str = "none,auto,suffix,recycling"
    peers: str = ""
    backend: str = "auto"
    plan: str = "auto"
    max_new_tokens: int = 128
    parts: dict[str, Any] = field(default_factory=dict)
    """The other parts of all our methods, as a recipe has them."""
    keep: bool = False
    repeat: int = 1
    loading: dict[str, Any] = field(default_factory=dict)
    """Options of ``decodery.load`` other than the backend."""


def run(choice: Choice, tasks: Sequence[Task], folder: Path, console: Console) -> list[Figures]:
    """Run or go on with a benchmark and publish it in ``folder``; peers that cannot run are named and left out."""
    if missing := [name for name in ("matplotlib", "psutil") if find_spec(name) is None]:
        raise DecoderyError(f"a benchmark needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    if choice.keep and choice.repeat > 1:
        raise DecoderyError(
            "--keep and --repeat do not go together: drafters would know the answers of the first repetition"
        )
    peers, absent = installed(choice.peers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DecoderyError(f"cannot write the report to {folder}: {error}") from error
    names = list(dict.fromkeys((PLAIN, *specs(choice.methods, also=ALL))))
    if choice.parts and choice.peers:
        raise DecoderyError("the peers decode greedily here: leave out --peers, or the parts")
    if choice.peers:
        peers_fit(choice.loading)
    models: dict[str, Model] = {}
    for reason in absent:
        console.print(f"[yellow]{escape(reason)}[/yellow]")
    own = (choice.parts, choice.keep, choice.loading)
    ours, left_out = methods(names, choice.model, choice.backend, choice.plan, models, *own)
    runners: list[Runner] = list(ours)
    for reason in left_out:
        console.print(f"[yellow]{escape(reason)}[/yellow]")
    left_out += absent
    for name in peers:
        try:
            runners.append(peer(name, choice.model, models[choice.backend]))
        except (DecoderyError, ImportError, RuntimeError) as error:
            left_out.append(f"{name}: {error}" if isinstance(error, BadModel) else str(error))
            console.print(f"[yellow]{escape(left_out[-1])}[/yellow]")
    header = _header(choice, tasks, runners, left_out, models, console, (folder / "run.json").exists())
    bench = Bench(models[choice.backend], runners, tasks, choice.max_new_tokens, folder, header, choice.repeat)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("warming up")
        for done, total, what in bench.run():
            progress.update(bar, completed=done, total=total, description=what)
    from decodery.bench.report import publish

    return publish(folder)


def _header(
    choice: Choice,
    tasks: Sequence[Task],
    runners: Sequence[Runner],
    left_out: list[str],
    models: dict[str, Model],
    console: Console,
    told: bool,
) -> dict[str, Any]:
    config = {
        **vars(choice),
        "runners": [runner.name for runner in runners],
        "tasks": len(tasks),
        "turns": sum(len(task.turns) for task in tasks),
        "digest": hashlib.sha256(repr(tasks).encode()).hexdigest()[:16],
    }
    if told:  # the run goes on: what it has measured stands
        return {"config": config}
    from decodery.bench.footprint import footprint  # needs psutil

    with console.status("measuring the cost of a forward, load times and memory ..."):
        return {
            "config": config,
            "model": _named(models[choice.backend]),
            "machine": machine(),
            "date": datetime.now().astimezone().isoformat(timespec="minutes"),
            "command": shlex.join(["decodery", *sys.argv[1:]]),
            "left_out": left_out,
            "costs": {_backend(m): _costs(m) for m in models.values()},
            "footprints": {
                name: footprint(name, choice.model, choice.backend, choice.plan, choice.loading)
                for name in _apart(runners)
            },
        }


def _apart(runners: Sequence[Runner]) -> list[str]:
    """Peers, and one method of ours on each backend: the others hold the same weights."""
    return list({id(getattr(runner, "model", runner)): runner.name for runner in reversed(runners)}.values())[::-1]


def _named(model: Model) -> str:
    return f"{model.name} ({model.facts.parameters / 1e6:.0f} M parameters, {model.backend})"


def _costs(model: Model) -> dict[int, float]:
    """Milliseconds of a forward by its tokens."""
    return {n: round(1e3 * seconds, 2) for n, seconds in cost_curve(model, SIZES).table.items()}


def _backend(model: Model) -> str:
    return f"decodery, {model.backend}"
