"""Plants faults in the engine and looks which suite notices: ``make mutants`` writes docs/mutations.md.

Each fault is a patch of the running code in a process of its own. The old suite is that of ``BASE``, the last commit before
the laws moved into the package; both run against the code as it is now.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import decodery.laws.test_laws
from decodery.constrain.lib.matcher import GrammarState, MatcherConstraint
from decodery.core import roles, walk
from decodery.core.law import Law
from decodery.core.tree import TokenTree
from decodery.core.values import Rows, Scheme, Tensor
from decodery.draft.lib.draft_model import Drawn
from decodery.guide.lib import places
from decodery.model import turn
from decodery.model.session import Session
from decodery.plan.acceptance import Forecast
from decodery.verify.lib import descend

ROOT = Path(__file__).parents[1]
BASE = "5ddc5c4"
SUITES = ("new", "old")
ENGINE = "tests/laws/test_engine.py"


class Fault(NamedTuple):
    """``plant`` makes it; ``part``: which part the new suite examines; ``old``: which old tests concern it."""

    told: str
    plant: Callable[[], None]
    part: str
    old: str


def everywhere(old: Any, new: Any) -> None:
    """Put ``new`` wherever a module has ``old`` by name."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("decodery", "tests")):
            for attribute, value in list(vars(module).items()):
                if value is old:
                    setattr(module, attribute, new)


def no_residual() -> None:
    def refuse(left: Tensor, child: descend.Child) -> Tensor:
        return left

    everywhere(descend.refuse, refuse)


def dropped_ghost() -> None:
    right = walk.walk

    def wrong(constraint: Any, state: Any, tree: TokenTree, eos: Any) -> list[Any]:
        repeated = list(tree.ghost)
        right(constraint, state, tree, eos)
        kept = tree.only([i for i in range(len(tree)) if repeated[i] or not tree.ghost[i]])
        vars(tree).update(vars(kept))
        return right(constraint, state, tree, eos)

    everywhere(right, wrong)


def q_of_another_row() -> None:
    right = Drawn.draw

    def draw(self: Drawn, tree: TokenTree, node: int, q: Tensor, rng: Any) -> Any:
        result = right(self, tree, node, q, rng)
        if len(tree) > 1 and tree.q[0] is not None and tree.q[-1] is not None:
            tree.q[-1] = tree.q[0] if float(tree.q[0][tree.tokens[-1]]) > 0 else tree.q[-1]
        return result

    Drawn.draw = draw  # type: ignore[method-assign]


def stale_companion() -> None:
    right = Session.rewind

    def rewind(self: Session, length: int) -> None:
        kept, self.companions = self.companions, {}
        right(self, length)
        self.companions = kept

    Session.rewind = rewind  # type: ignore[method-assign]


def masked_too_late() -> None:
    right = roles.Laws.__call__

    def call(self: roles.Laws, rows: Rows, masks: Any = ()) -> Law:
        return right(self, rows, [*masks[:1], *[None for _ in masks[1:]]])

    roles.Laws.__call__ = call  # type: ignore[method-assign]


def settled_wrongly() -> None:
    right = Drawn.empty
    Drawn.empty = lambda self, scheme, _=False: right(self, scheme, True)  # type: ignore[method-assign, misc]


def younger_first() -> None:
    right = TokenTree.children

    def children(self: TokenTree, node: int) -> list[int]:
        found = right(self, node)
        return found[::-1] if self.scheme is Scheme.DISTINCT else found

    TokenTree.children = children  # type: ignore[method-assign]


def mixed_rows() -> None:
    right = turn.turn

    def wrong(asks: Any, joint: Any = None) -> Any:
        answers = right(asks, joint)
        for one, other in pairwise(answers):
            if isinstance(one, Rows) and isinstance(other, Rows) and one.logits.shape == other.logits.shape:
                one.logits, other.logits = other.logits, one.logits
        return answers

    everywhere(right, wrong)


def path_of_another_row() -> None:
    right = places.places

    def wrong(rows: Rows, start: int) -> Any:
        return right(replace(rows, paths=[*rows.paths[1:], rows.paths[0]]), start)

    everywhere(right, wrong)


def state_changed_in_place() -> None:
    def advance(self: MatcherConstraint, state: GrammarState, token: int) -> GrammarState | None:
        if state.matcher.is_stopped() or state.matcher.try_consume_tokens([token]) < 1:
            return None
        return GrammarState(state.matcher.deep_copy())

    MatcherConstraint.advance = advance  # type: ignore[method-assign]


def ties_to_the_higher() -> None:
    def best(self: Law) -> list[int | None]:
        top = self.logits.max(-1, keepdim=True).values
        last = [int(row.nonzero()[-1]) for row in self.logits == top]
        return [None if v == -torch.inf else t for v, t in zip(top.flatten().tolist(), last, strict=True)]

    Law.best = property(best)  # type: ignore[assignment]


def plan_that_looks() -> None:
    right = Forecast.promises

    def promises(self: Forecast, tree: TokenTree) -> list[float]:
        found = right(self, tree)
        for node, token in enumerate(tree.tokens):
            above = 1.0 if tree.parents[node] < 0 else found[tree.parents[node]]
            found[node] = min(found[node], above) if token == 1 else 0.0
        return found

    Forecast.promises = promises  # type: ignore[method-assign]


def drawn_with_replacement() -> None:
    right = Drawn.draw

    def draw(self: Drawn, tree: TokenTree, node: int, q: Tensor, rng: Any) -> Any:
        child, chance, _ = right(self, tree, node, q, rng)
        return child, chance, q

    Drawn.draw = draw  # type: ignore[method-assign]


def dropped_draw() -> None:
    right = Drawn.levels

    def levels(self: Drawn, *given: Any) -> Any:
        tree = yield from right(self, *given)
        keep = [node for node in range(len(tree)) if all(tree.tokens[i] != 0 for i in tree.path(node))]
        return tree.only(keep)

    Drawn.levels = levels  # type: ignore[method-assign]


def companions_left_open() -> None:
    def leave(self: Session) -> None:
        self.companions = {}

    Session.leave = leave  # type: ignore[method-assign]


def states_of_another_row() -> None:
    right = turn._rows

    def wrong(*given: Any) -> Rows:
        rows = right(*given)
        rows.hidden = {site: states.roll(1, 0) for site, states in rows.hidden.items()}
        return rows

    everywhere(right, wrong)


FAULTS = [
    Fault("A refused token takes nothing out of p", no_residual, "residual", "test_parts and residual"),
    Fault(
        "A forbidden drawn node is dropped, not made a ghost",
        dropped_ghost,
        "regex",
        f"{ENGINE}::test_law[iid:path=toy,width=2,length=1]",
    ),
    Fault(
        "A node carries the q of another row",
        q_of_another_row,
        "draft/model",
        f"{ENGINE}::test_law[model:length=2]",
    ),
    Fault(
        "Companions are not taken back with the text",
        stale_companion,
        "cfg",
        f"{ENGINE}::test_law[model:length=2]",
    ),
    Fault(
        "Drafted rows are not masked",
        masked_too_late,
        "regex",
        f"{ENGINE}::test_law[ngram:min=1,length=2]",
    ),
    Fault("A shape that depends on draws is called settled", settled_wrongly, "dyspec", "dyspec"),
    Fault("A sibling is judged before its elder", younger_first, "residual", "test_parts and residual"),
    Fault(
        "Rows of a batch are exchanged",
        mixed_rows,
        "presence",
        f"{ENGINE}::test_law_in_a_batch[2-ngram:min=1,length=2]",
    ),
    Fault(
        "A guide sees the path of another row",
        path_of_another_row,
        "presence",
        f"{ENGINE}::test_law[ngram:min=1,length=2]",
    ),
    Fault("A constraint changes its state in place", state_changed_in_place, "regex", "test_mask_and_advance"),
    Fault("Ties go to the higher id", ties_to_the_higher, "verify/greedy", "test_parts and greedy"),
    Fault(
        "The planner looks at drawn tokens",
        plan_that_looks,
        "draft/model",
        f"{ENGINE}::test_law[model:path=toy,width=2,length=1]",
    ),
    Fault("Distinct siblings are drawn with replacement", drawn_with_replacement, "rsd-c", "rsd-c"),
    Fault(
        "A drafter drops what it drew",
        dropped_draw,
        "draft/model",
        f"{ENGINE}::test_law[model:length=2]",
    ),
    Fault("Companions are left open", companions_left_open, "cfg", f"{ENGINE}::test_law[none]"),
    Fault(
        "Hidden states are those of another row",
        states_of_another_row,
        "dola",
        f"{ENGINE}::test_law[ngram:min=1,length=2]",
    ),
]


class First:
    """Notes the first test that fails."""

    failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def run(fault: Fault | None, arguments: list[str], folder: Path) -> tuple[str, float]:
    """In a process of its own: the first test that fails, and seconds of processor time."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        start, first = time.process_time(), First()
        if fault is not None:
            fault.plant()
        pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments], plugins=[first])
        os.write(write, f"{time.process_time() - start:.1f}\n{first.failed}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        seconds, failed = pipe.read().split("\n", 1)
    os.waitpid(child, 0)
    return failed, float(seconds)


def old_tests(fault: Fault) -> list[str]:
    """What is run of the old suite: one test by its name, or those that match; only wrong laws count, not golden files."""
    return [fault.old, "--update-golden"] if "::" in fault.old else ["tests/laws/test_parts.py", "-k", fault.old]


def old_suite(folder: Path) -> None:
    """The tests of ``BASE`` in a folder."""
    archive = subprocess.run(
        ["git", "archive", BASE, "tests", "pyproject.toml"], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def main() -> None:
    """Every fault (or those whose words are given) through both suites."""
    torch.set_num_threads(1)
    chosen = [one for one in FAULTS if not sys.argv[1:] or any(word in one.told for word in sys.argv[1:])]
    found: dict[str, list[str]] = {}
    laws = ["-p", "decodery.laws.plugin", str(Path(decodery.laws.test_laws.__file__)), "--part"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old_suite(folder)
        for suite in SUITES:
            for fault in chosen:
                arguments = [*laws, fault.part] if suite == "new" else old_tests(fault)
                test, seconds = run(fault, arguments, ROOT if suite == "new" else folder)
                told = f"`{test.rpartition('::')[2]}`" if test else "no"
                found.setdefault(fault.told, []).append(f"{told.replace('|', '/')}, {seconds:.0f} s")
                print(suite, fault.told, found[fault.told][-1], sep=" | ", flush=True)
    if len(chosen) == len(FAULTS):
        table = "\n".join(f"| {told} | {old} | {new} |" for told, (new, old) in found.items())
        (ROOT / "docs" / "mutations.md").write_text(PAGE.format(base=BASE, table=table))


PAGE = """# Planted faults

Generated by `make mutants` (tools/mutate.py). Each fault was planted in the engine; then the tests of the old law suite that
concern it (commit {base}: every combination enumerated) and the laws of one part (`pytest --pyargs decodery.laws --part ...`)
ran until the first one failed. Seconds are processor time.

| fault | old suite: caught by | new suite: caught by |
|---|---|---|
{table}
"""

if __name__ == "__main__":
    main()
