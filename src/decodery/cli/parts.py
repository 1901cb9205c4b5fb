"""Commands that tell of parts: list, show, laws."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from decodery.cli.common import app, errors, out
from decodery.cli.options import JSON
from decodery.core.errors import DecoderyError
from decodery.run.catalogue import facts
from decodery.run.registry import ROLES, entries, find, role_of


@app.command("list")
def list_parts(
    role: Annotated[str, typer.Argument(help=f"{', '.join(ROLES)}; all if left out.")] = "",
    as_json: JSON = False,
) -> None:
    """The parts there are, in a line each; --json tells their papers and needs as well."""
    with errors():
        if role:
            role_of(role)
        rows = [facts(entry) for entry in entries() if role in ("", entry.role)]
        if as_json:
            print(json.dumps(rows))
            return
        table = Table("role", "name", "what it does", box=None, header_style="bold")
        for row in rows:
            table.add_row(row["role"], row["name"], escape(row["what"] + " (lossy)" * (not row["lossless"])))
        out.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A part, e.g. recycling, guide/top-p or draft/pkg.mod:Mine.")],
) -> None:
    """A part's description, its parameters with defaults, and where its source is."""
    with errors():
        import inspect

        from decodery.core.hints import shown
        from decodery.core.parameters import default_of, hints_of

        role, slash, short = name.rpartition("/")
        found = [e for e in entries() if e.name == short and (not slash or e.role == role)]
        if not found:
            found = [find(role or "draft", short or name)]
        for entry in found:
            kind: Any = entry.part
            out.print(
                f"[bold]{entry.role} part {entry.name}[/bold]"
                + (f"  [dim]{escape(kind.paper)}[/dim]" * bool(kind.paper))
            )
            out.print(escape(inspect.cleandoc(kind.__doc__ or "")))
            for parameter, hint in hints_of(kind).items():
                told = f": {shown(hint, parameter)} = {default_of(kind, parameter)}"
                out.print(f"  [cyan]{parameter}[/cyan]{escape(told)}")
            out.print(f"  lossless: {_yes(kind.lossless)} · source: {inspect.getsourcefile(kind)}\n")


@app.command()
def laws(
    parts: Annotated[list[str], typer.Argument(help="Parts, e.g. ngram, guide/top-p or pkg.mod:Mine.")],
) -> None:
    """Examine parts by the laws of their roles, on toy models: every branch of randomness is enumerated."""
    with errors():
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


def _yes(value: bool) -> str:
    return "yes" if value else "no"
