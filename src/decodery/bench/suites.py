"""The prompts of a benchmark, read from the published files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from decodery.bench.data import SOURCES
from decodery.core.errors import DecoderyError

MT_BENCH = frozenset(("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"))
"""Spec-Bench reports these categories of MT-Bench as one."""

MINI = Path(__file__).with_name("mini.jsonl")
"""The suite that comes with the package: 60 prompts in six categories, written for it and in the public domain."""


@dataclass(frozen=True)
class Task:
    """A conversation to be answered turn by turn.

    ``answer`` is what its grader needs, empty where nothing is graded; ``by_turn``: figures are grouped by turn.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    answer: tuple[tuple[str, str], ...] = ()
    by_turn: bool = False

    def group(self, turn: int) -> str:
        """The category that a turn is counted in."""
        return f"turn {turn + 1}" if self.by_turn else self.category


def tasks_of(suite: str, file: Path | None = None, limit: int | None = None) -> list[Task]:
    """The tasks of a suite, at most ``limit`` of them spread evenly over its categories.

    ``file`` replaces the suite's own; the suite ``prompts`` has none of its own (a prompt a line, taken as it is, or
    JSONL with ``prompt`` or ``turns``). Raises ``DecoderyError`` for an unknown suite or a file that is missing or malformed.
    """
    if suite not in (*SOURCES, "mini", "prompts"):
        raise DecoderyError(f"there is no suite {suite!r}; suites: mini, {', '.join(SOURCES)}, prompts FILE")
    if suite == "prompts" and file is None:
        raise DecoderyError("the suite prompts needs a file: decodery bench prompts FILE")
    path, hint = file or Path(), ""
    if file is None and suite == "mini":
        path = MINI
    elif file is None:
        path = SOURCES[suite].place()
        hint = f". To get it from github.com/{SOURCES[suite].repository}: decodery data get {suite}"
    if not path.is_file():
        raise DecoderyError(f"no such file: {path}{hint}")
    tasks = list(_read(suite, path))
    if not tasks:
        raise DecoderyError(f"{path} holds no prompts")
    return spread(tasks, limit)


def spread(tasks: list[Task], limit: int | None) -> list[Task]:
    """At most ``limit`` tasks, one of each category in turn."""
    if limit is None:
        return tasks
    if limit < 1:
        raise DecoderyError(f"the limit must be at least 1, not {limit}")
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.category].append(task)
    rounds = zip_longest(*groups.values())
    return [task for task in chain.from_iterable(rounds) if task is not None][:limit]


def _read(suite: str, path: Path) -> Iterator[Task]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecoderyError(f"{path} is not text in UTF-8: {error}") from error
    # A line ends at a line feed only: other separators, such as U+2028 or a form feed, may be part of a prompt.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        try:
            yield _task(suite, number, line)
        except (ValueError, KeyError, TypeError) as error:
            raise DecoderyError(f"{path}, line {number}, is no {suite} question: {error!r}") from error


def _task(suite: str, number: int, line: str) -> Task:
    if suite == "prompts" and not line.lstrip().startswith("{"):
        return Task(str(number), "prompts", (line,))
    entry: dict[str, Any] = json.loads(line)
    if suite == "humaneval":
        ask = "Complete this Python function. Answer with the whole function in one code block.\n\n```python\n{}```"
        told = tuple((key, str(entry[key])) for key in ("prompt", "test", "entry_point"))
        return Task(str(entry["task_id"]), "code", (ask.format(entry["prompt"]),), told)
    if suite == "gsm8k":
        ask = "{}\nThink step by step and end with the answer as a number."
        told = (("number", str(entry["answer"]).rpartition("####")[2].strip()),)
        return Task(str(entry.get("test_index", number)), "math", (ask.format(entry["question"]),), told)
    turns = tuple(entry["turns"]) if "turns" in entry else (entry["prompt"],)
    if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise ValueError("turns must be non-empty texts")
    category = str(entry.get("category", "prompts"))
    return Task(
        str(entry.get("question_id", number)),
        "mt-bench" if category in MT_BENCH else category,
        turns,
        (),
        suite == "mt-redundant",
    )
