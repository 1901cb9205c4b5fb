"""The checks of a commit, under 90 seconds: what the changed files concern. ``make quick``, or ``tools/quick.py BASE``.

Style, types and the layers of the whole; then the laws of the parts whose files changed, and the tests that name a changed
module. The whole suite is `make test`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROLES = ("draft", "verify", "guide", "constrain", "search")
SAMPLE = ("draft/ngram", "verify/residual", "guide/presence", "constrain/choice", "search/beam")
FEW = 2
"""Up to so many parts are examined together with all others; more only by themselves."""
MOST = 6
"""Test files run at most: a change that concerns more is for the whole suite."""
HEAVY = ("tests/hf/", "test_outside.py", "test_openvino.py")
"""Tests that load networks or start processes; they run only if they were changed themselves."""


def changed(base: str) -> list[str]:
    """Files that differ from the base commit, committed or not, and new ones."""
    commands = (["git", "diff", "--name-only", base], ["git", "ls-files", "--others", "--exclude-standard"])
    found = {line for command in commands for line in _told(command).splitlines()}
    return sorted(name for name in found if (ROOT / name).exists())


def parts(files: Iterable[str]) -> list[str]:
    """The ``--part`` of each part whose file changed, or a module that it imports itself; else, where any of the package's
    code changed, of one part of each role."""
    from decodery.run.registry import ROLES as TABLE

    modules = [name[4:-3].replace("/", ".") for name in files if re.fullmatch(r"src/.*\.py", name)]
    found, near = [], []
    for role in ROLES:
        for part, target in TABLE[role].parts.items():
            module = target.partition(":")[0]
            text = (ROOT / "src" / f"{module.replace('.', '/')}.py").read_text()
            if module in modules:
                found.append(f"{role}/{part}")
            elif any(
                re.search(rf"\b{re.escape(changed)}\b", text) for changed in modules if f".{role}.lib." in changed
            ):
                near.append(f"{role}/{part}")
    return found + near or list(SAMPLE if modules else ())


def tests(files: Iterable[str]) -> list[str]:
    """The test files that changed, and those that import a changed module, the nearest first."""
    files = list(files)
    own = [name for name in files if re.fullmatch(r"tests/.*/test_\w+\.py", name)]
    modules = [name[4:-3].replace("/", ".") for name in files if re.fullmatch(r"src/.*\.py", name)]
    naming: list[tuple[int, str]] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name, text = str(path.relative_to(ROOT)), path.read_text()
        hits = sum(bool(re.search(rf"\b{re.escape(module)}\b", text)) for module in modules)
        if hits and name not in own and not any(mark in name for mark in HEAVY):
            naming.append((-hits, name))
    return [*own, *(name for _, name in sorted(naming))][: max(MOST, len(own))]


def main() -> int:
    """Run all; the exit code of the first that fails."""
    base = sys.argv[1] if sys.argv[1:] else "HEAD"
    files = changed(base)
    if not files and base == "HEAD":
        files = changed("HEAD~1")
    python = Path(sys.executable)
    beside = python.parent
    commands: list[list[str | Path]] = [
        [beside / "ruff", "check", "."],
        [beside / "ruff", "format", "--check", "."],
        [beside / "mypy"],
        [beside / "lint-imports"],
    ]
    pytest: list[str | Path] = [python, "-m", "pytest", "-q", "-x", "-n", "2"]
    if examined := parts(files):
        options = [option for part in examined for option in ("--part", part)]
        alone = ["-k", "test_alone"] if len(examined) > FEW else []
        commands.append([*pytest, "src/decodery/laws", "-p", "decodery.laws.plugin", *options, *alone])
    if named := tests(files):
        commands.append([*pytest, *named])
    for command in commands:
        print("$", *(str(word).removeprefix(f"{beside}/") for word in command), flush=True)
        if code := subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        ).returncode:
            return code
    return 0


def _told(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
