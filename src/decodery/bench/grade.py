"""Whether an answer is right: code by running it, numbers by comparing them."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile

from decodery.bench.suites import Task

SECONDS, MEMORY = 10, 1 << 30
"""What a checked program may use."""


def grade(task: Task, text: str) -> bool | None:
    """The verdict on an answer; None for tasks without a right answer."""
    told = dict(task.answer)
    if "test" in told:
        return passes(told["prompt"], text, told["test"], told["entry_point"])
    if "number" in told:
        return number(text) == _value(told["number"])
    return None


def number(text: str) -> float | None:
    """The last number of a text; thousands' commas are ignored."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return _value(found[-1]) if found else None


def code(prompt: str, text: str) -> str:
    """The program of an answer: its first code block, put behind the prompt where it is only the function's body."""
    block = re.search(r"```(?:python)?\n(.*?)(?:```|\Z)", text, re.DOTALL)
    program = block.group(1) if block else text
    return program if re.search(r"^\s*def ", program, re.MULTILINE) else prompt + program


def passes(prompt: str, text: str, test: str, entry: str) -> bool:
    """Run an answer and its tests (HumanEval's ``check``) in a process of its own.

    The process has an empty folder, no environment and limits on time, memory, processes and files; that keeps accidents
    in, not attackers.
    """
    imports = "\n".join(re.findall(r"^(?:from|import) .*", prompt, re.MULTILINE))
    program = f"{imports}\n{code(prompt, text)}\n{test}\ncheck({entry})\n"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", program],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                preexec_fn=_limit,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NPROC, 64),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _value(text: str) -> float | None:
    try:
        return float(text.replace(",", "").strip("$ "))
    except ValueError:
        return None
