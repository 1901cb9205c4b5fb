"""How speed depends on the length of the prompt and on how many texts run at once, beside transformers."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from decodery.bench.driver import timed
from decodery.bench.runners import PLAIN, Ours, Runner, peer, peers_fit
from decodery.bench.tables import Table, caption, markdown
from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole
from decodery.inspect.doctor import machine
from decodery.model.model import Model
from decodery.run.api import decode
from decodery.run.load import load
from decodery.run.recipe import Recipe

NEW = 64
"""New tokens of each text of a batch."""

PROMPT = 256
"""Tokens of the prompt of each text of a batch."""

THEIRS = "transformers"

Batch = Callable[[list[list[int]], int], object]
"""Decodes several prompts of one length by so many tokens each."""


@dataclass(frozen=True)
class Sweep:
    """What to measure: prompts of these ``lengths`` in tokens, ``batches`` of so many texts; medians of ``rounds``."""

    model: str = "smollm2"
    methods: tuple[str, ...] = (PLAIN, "auto")
    lengths: tuple[int, ...] = (100, 1000, 4000)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 3
    loading: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``decodery.load``; transformers runs the untouched model in float32 on the CPU."""


def sweep(choice: Sweep, folder: Path) -> Iterator[str]:
    """Measure, runners in turns, and write ``sweep.json`` and ``sweep.md``; yields what is done next.

    The tokens of the prompts mean nothing: what a prompt says changes neither what its pass nor what plain decoding costs.
    """
    for name in choice.methods:
        Recipe.of(draft=name)  # says what is wrong before anything is loaded
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DecoderyError(f"cannot write the report to {folder}: {error}") from error
    model = load(choice.model, **choice.loading)
    peers_fit(choice.loading)
    if too_long := [length for length in choice.lengths if length + NEW >= model.context]:
        raise DecoderyError(f"prompts of {too_long[0]} tokens do not fit: the model's context is {model.context}")
    runners: list[Runner] = [Ours(name, model, name) for name in choice.methods]
    batches: dict[str, Batch] = {name: _ours(model, name) for name in choice.methods}
    theirs: Any = peer(THEIRS, choice.model, model)
    runners.append(theirs)
    batches[THEIRS] = theirs.batch
    yield "the start of a process"
    starts = [_start(choice.model, choice.loading) for _ in range(choice.rounds)]
    first: dict[str, dict[str, float]] = {}
    for length in choice.lengths:
        yield f"prompts of {length} tokens"
        first[str(length)] = _firsts(runners, _prompt(model, length), choice.rounds, model.eos)
    speeds: dict[str, dict[str, float]] = {}
    for count in choice.batches:
        yield f"{count} texts at once"
        speeds[str(count)] = _speeds(batches, [_prompt(model, PROMPT, i) for i in range(count)], choice.rounds)
    found = {
        "config": vars(choice),
        "machine": machine(),
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "command": " ".join(["decodery", *sys.argv[1:]]),
        "seconds from the shell to the first token": statistics.median(starts),
        "seconds to the first token": first,
        "tokens a second of a batch": speeds,
    }
    write_whole(folder / "sweep.json", json.dumps(found, indent=1))
    write_whole(folder / "sweep.md", told(found))


def told(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    first, speeds = found["seconds to the first token"], found["tokens a second of a batch"]
    parts = [f"{caption(found)}; medians of {found['config']['rounds']} rounds.\n"]
    parts += [f"From the shell to the first token: {found['seconds from the shell to the first token']:.2f} s.\n"]
    if first:
        parts.append(f"## Seconds to the first token, by the length of the prompt\n\n{markdown(_table(first, '.3f'))}")
    if speeds:
        told = f"## Tokens a second in all, by the number of texts ({PROMPT} prompt tokens, {NEW} new ones each)"
        parts.append(f"{told}\n\n{markdown(_table(speeds, '.1f'))}")
    return "\n".join(parts)


def _table(found: dict[str, dict[str, float]], form: str) -> Table:
    names = list(next(iter(found.values())))
    body = [
        [name, *(f"{row[name]:{form}} ({row[name] / row[THEIRS]:.2f} x {THEIRS})" for row in found.values())]
        for name in names
    ]
    return ["method", *found], body


def _firsts(runners: Sequence[Runner], prompt: list[int], rounds: int, eos: frozenset[int]) -> dict[str, float]:
    times: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for turn in range(rounds + 1):
        for runner in runners:
            _, marks, _ = timed(runner, prompt, 1, eos)
            if turn:  # the first round prepares for the size
                times[runner.name].append(marks[0][0])
    return {name: round(statistics.median(found), 4) for name, found in times.items()}


def _speeds(batches: dict[str, Batch], prompts: list[list[int]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in batches}
    for turn in range(rounds + 1):
        for name, run in batches.items():
            start = perf_counter()
            run(prompts, NEW)
            if turn:
                times[name].append(perf_counter() - start)
    return {name: round(len(prompts) * NEW / statistics.median(found), 2) for name, found in times.items()}


def _ours(model: Model, draft: str) -> Batch:
    return lambda prompts, limit: decode(model, prompts, draft=draft, max_new_tokens=limit, ignore_eos=True)


def _prompt(model: Model, length: int, seed: int = 0) -> list[int]:
    return [(i * 7 + 31 * seed) % (model.vocab - 300) + 200 for i in range(length)]


def _start(model: str, loading: Mapping[str, Any]) -> float:
    """Seconds from a shell to the first token of ``decodery run``."""
    command = [sys.executable, "-c", "from decodery.cli import main; main()", "run", "Say hello.", "-m", model]
    command += [f"--{name}={value}" for name, value in loading.items()]
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = perf_counter() - start
        process.stdout.read()
    return seconds
