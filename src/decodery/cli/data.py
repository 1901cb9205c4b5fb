"""Commands for the prompts of benchmarks: data list, data get."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from decodery.cli.common import app, err, errors, out
from decodery.cli.options import JSON

data = typer.Typer(help="The published prompts that bench knows: list them, get one.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command("list")
def list_suites(as_json: JSON = False) -> None:
    """The suites of bench: source, licence, size, SHA-256, and whether it is here."""
    with errors():
        from decodery.bench.data import SOURCES, data_dir, state

        if as_json:
            told = [(name, asdict(source), source) for name, source in SOURCES.items()]
            print(
                json.dumps([{"suite": name, **facts, "url": one.url, "state": state(one)} for name, facts, one in told])
            )
            return
        out.print("[bold]mini[/bold]  60 prompts · public domain · comes with the package")
        for name, source in SOURCES.items():
            facts = f"{source.prompts} prompts · {source.size / 1e3:.0f} kB · {source.licence} · {state(source)}"
            out.print(f"[bold]{name}[/bold]  {escape(facts)}\n  {source.url}\n  SHA-256 {source.digest}")
        out.print(f"\n[dim]data folder: {escape(str(data_dir()))} (DECODERY_DATA names another)[/dim]")


@data.command("get")
def get_suite(
    name: Annotated[str, typer.Argument(help="A suite: decodery data list.")],
    origin: Annotated[str, typer.Option("--from", help="A file or URL in place of the origin's.")] = "",
) -> None:
    """Fetch a suite into the data folder and check its SHA-256; it appears whole or not at all."""
    with errors():
        from decodery.bench.data import SOURCES, get

        place = get(name, origin)
        err.print(f"{escape(str(place))} · {SOURCES[name].licence} · SHA-256 {SOURCES[name].digest}")
