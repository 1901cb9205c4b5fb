"""Commands that tell of parts: list, show, laws."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from decodery.cli import completion
from decodery.cli.common import out
from decodery.cli.options import JSON, command
from decodery.core.errors import DecoderyError, UnknownPart
from decodery.run.catalogue import example, facts, parameters
from decodery.run.registry import ROLES, entries, find, nearest, role_of


@command("list")
def list_parts(
    role: Annotated[
        str, typer.Argument(help=f"{', '.join(ROLES)}; all if left out.", autocompletion=completion.roles)
    ] = "",
    as_json: JSON = False,
) -> None:
    """The parts there are, in a line each; --json tells their papers and needs as well."""
    if role:
        if role not in ROLES and role in {entry.name for entry in entries()}:
            raise DecoderyError(f"{role} is a part, not a role: decodery show {role}. The roles are {', '.join(ROLES)}")
        role_of(role)
    rows = [facts(entry) for entry in entries() if role in ("", entry.role)]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("role", "name", "what it does", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["role"], row["name"], escape(row["what"] + " (lossy)" * (not row["lossless"])))
    out.print(table)


@command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A part, e.g. recycling, guide/top-p or draft/pkg.mod:Mine.", autocompletion=completion.parts
        ),
    ],
) -> None:
    """What a part does, its parameters, the paper it comes from, and an example."""
    import inspect

    role, slash, short = name.rpartition("/")
    found = [e for e in entries() if e.name == short and (not slash or e.role == role)]
    if not found and not slash and ":" not in name:
        known = [entry.name for entry in entries()]
        raise UnknownPart(f"no part is called {name!r}.{nearest(name, known)} decodery list tells which there are")
    for entry in found or [find(role or "draft", short or name)]:
        kind: Any = entry.part
        out.print(f"[bold]{entry.role} part {entry.name}[/bold]")
        out.print(escape(inspect.cleandoc(kind.__doc__ or "").replace("``", "`")))
        if rows := parameters(kind):
            table = Table("parameter", "type", "default", "range", "meaning", box=None, header_style="bold")
            for told in rows:
                table.add_row(f"[cyan]{told.name}[/cyan]", *map(escape, told[1:]))
            out.print(table)
        for title, fact in (
            ("paper", kind.paper),
            ("lossless", "yes" if kind.lossless else "no"),
            ("needs", ", ".join(facts(entry)["needs"])),
            ("example", example(entry)),
            ("source", inspect.getsourcefile(kind)),
        ):
            if fact:
                out.print(f"{title:<10}{escape(str(fact))}")
        out.print()


@command()
def laws(
    parts: Annotated[list[str], typer.Argument(help="Parts, e.g. ngram, guide/top-p or pkg.mod:Mine.")],
) -> None:
    """Examine parts by the laws of their roles, on toy models: every branch of randomness is enumerated."""
    try:
        import pytest
    except ImportError as error:
        raise DecoderyError("the laws run under pytest: pip install pytest") from error
    from decodery.laws.specimens import chosen

    for part in parts:
        chosen(part)  # says what is wrong before anything runs
    options = [option for part in parts for option in ("--part", part)]
    plain = ["-c", os.devnull, "-p", "no:cacheprovider", "-p", "decodery.laws.plugin"]
    raise typer.Exit(int(pytest.main([*plain, "-q", "--pyargs", "decodery.laws.test_laws", *options])))
