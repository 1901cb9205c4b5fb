"""Writes the generated parts of the documentation: ``make docs``.

``docs/methods.md`` comes from the registry and the newest benchmark of all drafters, ``docs/composition.md`` from what the
law suite proved (tests/laws/golden.txt). Run it in a checkout.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from decodery.core.hints import shown
from decodery.core.parameters import default_of, hints_of
from decodery.laws.specimens import guide_sets, specimens
from decodery.run.catalogue import FILE, examined
from decodery.run.registry import ROLES, Entry, entries
from decodery.run.spec import needs_of

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write all generated pages."""
    (ROOT / "docs" / "methods.md").write_text(methods())
    (ROOT / "docs" / "composition.md").write_text(composition())
    FILE.write_text(catalogue())


def catalogue() -> str:
    """What ``decodery list`` tells of the package's own parts."""
    told = {f"{entry.role}/{entry.name}": examined(entry) for entry in entries(outsiders=False)}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def table() -> str:
    """One line a part."""
    lines = [
        "| role | part | what it does | from | lossless | tokens/forward, 16 nodes | x plain, planned |",
        "|---|---|---|---|---|---|---|",
    ]
    seen = measured()
    for entry in entries(outsiders=False):
        part = entry.part
        told = [entry.role, f"`{entry.name}`", _first(part), part.paper, "yes" if part.lossless else "no"]
        forwards, ratio, where = seen.get(_method(entry), ("", "", ""))
        lines.append(f"| {' | '.join([*told, forwards, ratio + where])} |")
    return "\n".join(lines)


def measured() -> dict[str, tuple[str, str, str]]:
    """Drafter -> tokens per forward with up to 16 nodes a step, speed against plain decoding on the same backend with
    ``plan=auto``, and a mark where that backend is torch.

    From the newest folder of results that benchmarked all of them in both ways.
    """
    folders = sorted((ROOT / "benchmarks" / "results").glob("*/training-free-fixed-16"))
    if not folders:
        return {}
    wide, planned = (_rows(folders[-1].with_name(name)) for name in (folders[-1].name, "training-free"))
    found: dict[str, tuple[str, str, str]] = {}
    for runner in wide.keys() & planned.keys():
        name, at, backend = runner.partition("@")
        if at and name in wide:
            continue
        forwards, ratio = wide[runner]["tokens_per_forward"], planned[runner]["ratios"][f"none{at}{backend}"][0]
        found[name.partition(":")[0]] = f"{forwards:.2f}", f"{ratio:.2f}", " (torch)" if backend else ""
    return found


def _rows(folder: Path) -> dict[str, Any]:
    """A benchmark's figures by runner."""
    return {row["runner"]: row for row in json.loads((folder / "summary.json").read_text())}


def _method(entry: Entry) -> str:
    """What the benchmark calls a part; it times drafters only."""
    return entry.name if entry.role == "draft" else ""


def methods() -> str:
    """Every part with its parameters."""
    benchmark = measured()
    lines = [
        "# Methods",
        "",
        "Generated from the registry by `make docs`; `decodery show NAME` prints the same. The figures were measured in one",
        "run (7 turns, each drafter cold). `suffix`, `mix` and `dyspec` have changed since: see the",
        "[benchmarks](../benchmarks/README.md).",
        "",
        table(),
        "",
    ]
    for role in ROLES:
        lines += [f"## {role}", ""]
        for entry in entries(outsiders=False):
            if entry.role != role:
                continue
            part = entry.part
            source = Path(inspect.getsourcefile(part) or "").relative_to(ROOT)
            lines += [f"### `{entry.name}`", ""]
            if part.paper:
                lines += [f"*{part.paper}*", ""]
            lines += [inspect.cleandoc(part.__doc__ or "").replace("``", "`"), ""]
            for name, hint in hints_of(part).items():
                default = default_of(part, name)
                lines.append(
                    f"- `{name}`: `{shown(hint, name)}`, {default if default == 'required' else f'`{default}`'}"
                )
            needs = ", ".join(needs_of(entry)) or "nothing special"
            lines.append(
                f"- lossless: {'yes' if part.lossless else 'no'}; needs: {needs}; source: [`{source}`](../{source})"
            )
            if seen := benchmark.get(_method(entry)):
                lines.append(
                    f"- measured: {seen[0]} tokens a forward with 16 nodes, {seen[1]} x plain decoding when planned{seen[2]}"
                )
            lines.append("")
    return "\n".join(lines)


def composition() -> str:
    """Which parts were proven to work together exactly, and which are refused and why."""
    lines = (ROOT / "tests" / "laws" / "golden.txt").read_text().splitlines()
    outcomes: dict[frozenset[tuple[str, str]], str] = {}
    reasons: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        pair, _, outcome = line.rpartition(" | lossy") if line.endswith(" | lossy") else line.partition(" | refused: ")
        first, second = re.split(r" \| (?=(?:draft|verify|guide|constrain|search) )", pair)
        outcomes[frozenset((_choice(first), _choice(second)))] = "-" if outcome else "~"
        if outcome:
            told = re.sub(r"guide part '[^']+'", "a guide", outcome)
            told = re.sub(r"but draft part '[^']+' was", "but a drafter was", told)
            reasons[told].add(_choice(first)[1])
    page = [
        "# What works together",
        "",
        "Generated by `make golden` and `make docs` from the law suite (`tests/laws/golden.txt`). It is no claim but a test",
        "result: every pair of parts that is not refused stands in an enumerated case with other parts, in batches of one to",
        "three, planned or not, thinned or not; there, on two toy models, the law of two tokens over every branch of randomness",
        "equals the definition to 1e-9. Each drafter is proven to draw what it says, and each verifier to be exact for whatever",
        "is drawn so, which covers the combinations that are not enumerated. CI fails when a cell gets worse.",
        "",
        "`+` exact; `~` lossy by its own account, but never outside what guides and constraint allow; `-` refused (reasons",
        f"below). {len(outcomes)} pairs are not exact: {sum(mark == '~' for mark in outcomes.values())} lossy, "
        f"{sum(mark == '-' for mark in outcomes.values())} refused.",
        "",
    ]
    choices = _choices()
    for title, rows, columns in (
        ("Drafters", "draft", ("verify", "search")),
        ("Guides", "guide", ("verify", "search")),
        ("Constraints", "constrain", ("verify", "search")),
    ):
        named = [(role, name) for role in columns for name in choices[role]]
        page += [f"## {title}", "", f"| {rows} | " + " | ".join(name for _, name in named) + " |"]
        page.append("|---" * (len(named) + 1) + "|")
        for name in choices[rows]:
            marks = [outcomes.get(frozenset(((rows, name), column)), "+") for column in named]
            page.append(f"| {name.replace('|', '/')} | " + " | ".join(marks) + " |")
        page.append("")
    others = [pair for pair in outcomes if not {role for role, _ in pair} & {"verify", "search"}]
    page += [f"Drafters, guides and constraints go together{', but for these:' if others else ' in any way.'}", ""]
    page += [
        f"- {' and '.join(name for _, name in sorted(pair))}: `{outcomes[pair]}`" for pair in sorted(others, key=sorted)
    ]
    page += [""] if others else []
    page += ["## Refused", ""]
    page += [f"- {reason} ({', '.join(sorted(names))})" for reason, names in sorted(reasons.items())]
    return "\n".join(page) + "\n"


def _choice(text: str) -> tuple[str, str]:
    role, _, name = text.partition(" ")
    return role, name


def _choices() -> dict[str, list[str]]:
    """The names of all specimens by role; of guides the sets that are examined."""
    found = {role: [name for name, _ in specimens(role, False)] for role in ("draft", "verify", "constrain", "search")}
    return {**found, "guide": [name for name, _ in guide_sets(False)]}


def _first(part: type) -> str:
    """The first sentence of the docstring."""
    text = " ".join((part.__doc__ or "").strip().split("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<=[.]) |;", text)[0].replace("|", "\\|")


if __name__ == "__main__":
    main()
