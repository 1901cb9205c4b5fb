"""Commands that tell of parts: list, show."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from decodery.cli.common import JSON, app, errors, out
from decodery.core.errors import DecoderyError


@app.command("list")
def list_parts(
    role: Annotated[
        str, typer.Argument(help="draft, verify, guide, constrain, search or change; all if left out.")
    ] = "",
    as_json: JSON = False,
) -> None:
    """The parts there are: name, paper, lossless or not, what they need."""
    with errors():
        from decodery.run.registry import ROLES, entries

        if role and role not in ROLES:
            raise DecoderyError(f"there is no role {role!r}; roles: {', '.join(ROLES)}")
        rows = [_facts(entry) for entry in entries() if role in ("", entry.role)]
        if as_json:
            print(json.dumps(rows))
            return
        table = Table("role", "name", "lossless", "needs", "what it does", "paper", box=None, header_style="bold")
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        out.print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A part, e.g. recycling or guide/top-p.")]) -> None:
    """A part's description, its parameters with defaults, and where its source is."""
    with errors():
        import dataclasses
        import inspect

        from decodery.run.registry import entries, find

        role, slash, short = name.rpartition("/")
        found = [e for e in entries() if e.name == short and (not slash or e.role == role)]
        if not found:
            find(role or "draft", short)
        for entry in found:
            kind = entry.part
            out.print(
                f"[bold]{entry.role} part {entry.name}[/bold]"
                + (f"  [dim]{escape(kind.paper)}[/dim]" * bool(kind.paper))
            )
            out.print(escape(inspect.cleandoc(kind.__doc__ or "")))
            for field in dataclasses.fields(kind):
                if field.init:
                    default = "required" if field.default is dataclasses.MISSING else repr(field.default)
                    out.print(f"  [cyan]{field.name}[/cyan]: {escape(str(field.type))} = {escape(default)}")
            out.print(f"  lossless: {_yes(kind.lossless)} · source: {inspect.getsourcefile(kind)}\n")


def _facts(entry: Any) -> dict[str, str]:
    kind = entry.part
    return {
        "role": entry.role,
        "name": entry.name,
        "lossless": _yes(kind.lossless),
        "needs": ", ".join(sorted(cap.value for cap in kind.needs)),
        "what": (kind.__doc__ or "").strip().splitlines()[0],
        "paper": kind.paper,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
