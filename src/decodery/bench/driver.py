"""One clock for all: every runner answers every turn, in turns, so that a drifting machine slows all alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

from decodery.bench.grade import grade
from decodery.bench.runners import PLAIN, Runner, Told
from decodery.bench.suites import Task
from decodery.core.errors import BadPrompt, DecoderyError
from decodery.core.files import write_whole
from decodery.model.model import Model


@dataclass
class Record:
    """One turn answered by one runner, in one repetition of the run.

    ``marks``: seconds since the call and tokens so far, at each burst; ``gaps``: the two best logits' difference at each
    token; ``stats``: of our own engine; ``right``: the grader's verdict.
    """

    runner: str
    task: str
    category: str
    turn: int
    prompt: int
    tokens: list[int]
    marks: list[tuple[float, int]]
    forwards: int | None = None
    gaps: list[float] = field(default_factory=list)
    stats: dict[str, Any] | None = None
    right: bool | None = None
    repetition: int = 0

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes a record unique in a run."""
        return self.runner, self.task, self.turn, self.repetition


@dataclass
class Bench:
    """A run: which runners answer which tasks, and the file that grows by a line for each record.

    All of it is done ``repeat`` times. A run that was interrupted goes on where it stopped; ``header`` says what must agree
    for that.
    """

    model: Model
    runners: Sequence[Runner]
    tasks: Sequence[Task]
    limit: int
    folder: Path
    header: dict[str, Any]
    repeat: int = 1

    def __post_init__(self) -> None:
        if self.runners[0].name != PLAIN:
            raise DecoderyError(f"the first method must be {PLAIN!r}, which all others are compared with")

    def run(self) -> Iterator[tuple[int, int, str]]:
        """Do what is not done yet; yields (turns done, turns in all, what runs next)."""
        records = {record.key: record for record in self._resume()}
        total = self.repeat * len(self.runners) * sum(len(task.turns) for task in self.tasks)
        self._warm_up()
        done = 0
        for repetition, (number, task) in product(range(self.repeat), enumerate(self.tasks)):
            messages: list[dict[str, str]] = []
            for turn, text in enumerate(task.turns):
                messages.append({"role": "user", "content": text})
                prompt = self._tokens(messages)
                for runner in _rotated(self.runners, number + turn + repetition):
                    yield done, total, f"{task.category} {task.id}: {runner.name}"
                    done += 1
                    if (runner.name, task.id, turn, repetition) not in records and prompt is not None:
                        record = self._answer(runner, task, turn, prompt, repetition)
                        records[record.key] = record
                        self._append(record)
                if prompt is None:
                    break
                plain = records[PLAIN, task.id, turn, 0].tokens
                messages.append({"role": "assistant", "content": self.model.text.decode(plain)})
        yield total, total, "done"

    def _answer(self, runner: Runner, task: Task, turn: int, prompt: list[int], repetition: int) -> Record:
        tokens, marks, told = timed(runner, prompt, self.limit, self.model.eos)
        right = grade(task, self.model.text.decode(tokens)) if turn == len(task.turns) - 1 else None
        return Record(
            runner.name,
            task.id,
            task.group(turn),
            turn,
            len(prompt),
            tokens,
            marks,
            told.forwards,
            [round(gap, 6) for gap in told.gaps] if runner.name == PLAIN else [],
            told.stats.as_dict() if told.stats else None,
            right,
            repetition,
        )

    def _tokens(self, messages: list[dict[str, str]]) -> list[int] | None:
        try:
            bare = self.model.text.tokenizer.chat_template is None
            text = "".join(f"{message['content']}\n\n" for message in messages)
            tokens = self.model.tokens(text if bare else messages)
        except BadPrompt:
            return None
        return tokens if len(tokens) + self.limit < self.model.context else None

    def _warm_up(self) -> None:
        prompt = self.model.encode("One, two, three, one, two, three, one, two,")
        for runner in self.runners:
            timed(runner, prompt, 8, self.model.eos)

    def _resume(self) -> list[Record]:
        self.folder.mkdir(parents=True, exist_ok=True)
        told = self.folder / "run.json"
        if not told.exists():
            write_whole(told, json.dumps(self.header, indent=1))
        elif (before := {"repeat": 1} | json.loads(told.read_text())["config"]) != (
            now := {"repeat": 1} | self.header["config"]
        ):
            differs = [key for key in before | now if before.get(key) != now.get(key)]
            raise DecoderyError(
                f"{self.folder} holds another run (its {', '.join(differs)} differ); give another --report folder"
            )
        found = read(self.folder)
        write_whole(self.folder / "records.jsonl", "".join(_line(record) for record in found))  # drops a torn last line
        return found

    def _append(self, record: Record) -> None:
        with (self.folder / "records.jsonl").open("a") as file:
            file.write(_line(record))


def timed(
    runner: Runner, prompt: list[int], limit: int, eos: frozenset[int]
) -> tuple[list[int], list[tuple[float, int]], Told]:
    """Call a runner under the clock: its tokens up to the first that ends the answer, and when they came."""
    tokens: list[int] = []
    marks: list[tuple[float, int]] = []

    def mark(burst: Sequence[int]) -> None:
        seconds = perf_counter() - start
        before = len(tokens)
        for token in burst:
            if len(tokens) < limit and not (tokens and tokens[-1] in eos):
                tokens.append(token)
        if len(tokens) > before:
            marks.append((round(seconds, 6), len(tokens)))

    start = perf_counter()
    told = runner(prompt, limit, mark)
    return tokens, marks, told


def read(folder: Path) -> list[Record]:
    """The records of a run; a last line that was not finished is left out."""
    path = folder / "records.jsonl"
    found = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):
            fields = json.loads(line)
            found.append(Record(**fields | {"marks": [(s, n) for s, n in fields["marks"]]}))
    return found


def _line(record: Record) -> str:
    return json.dumps(asdict(record), separators=(",", ":")) + "\n"


def _rotated(runners: Sequence[Runner], by: int) -> list[Runner]:
    cut = by % len(runners)
    return [*runners[cut:], *runners[:cut]]
