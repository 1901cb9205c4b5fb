"""Commands that make files for drafters: index, fit-tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from decodery.cli.common import can_be_written, err
from decodery.cli.groups import StyleOptions
from decodery.cli.models import ModelOptions, NameOptions
from decodery.cli.options import JSON, LIMIT, TOKENS, command


@command()
def index(
    files: Annotated[list[Path], typer.Argument(help="Text files in UTF-8, a document each.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make.")],
    as_json: JSON = False,
    model: NameOptions = NameOptions(),  # noqa: B008
) -> None:
    """Make a datastore of text files, for --draft datastore:STORE. A model's own answers serve it best."""
    from time import perf_counter

    from decodery.draft.lib.store import index as build

    can_be_written("output", output)
    start, text = perf_counter(), model.text()
    store = build(files, text.pieces, text.fingerprint, output, model=model.model)
    facts = {"store": str(output), "tokens": len(store), "seconds": round(perf_counter() - start, 2)}
    if as_json:
        print(json.dumps(facts))
    else:
        err.print(f"{escape(str(output))}: {len(store)} tokens, {8 * len(store) / 1e6:.1f} MB, {facts['seconds']} s")


@command("fit-tree")
def fit_tree(
    prompts: Annotated[str, typer.Argument(help="A text file, a prompt a line, or a suite such as spec-bench.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The template to write, FILE.json.")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the tree; a forward computes one row more.")] = 16,
    widest: Annotated[str, typer.Option(help="Where to choose from: published, or all RANKSxDEPTH, e.g. 4x3.")] = (
        "published"
    ),
    limit: LIMIT = None,
    max_new_tokens: TOKENS = 64,
    as_json: JSON = False,
    model: ModelOptions = ModelOptions(),  # noqa: B008
    text: StyleOptions = StyleOptions(),  # noqa: B008
) -> None:
    """Fit the tree of Token Recycling to a model and prompts, for --draft recycling:template=FILE.json."""
    from decodery.bench.data import SOURCES
    from decodery.bench.suites import tasks_of
    from decodery.inspect.fit_template import fit

    can_be_written("output", output)
    known = prompts in ("mini", *SOURCES)
    tasks = tasks_of(prompts, None, limit) if known else tasks_of("prompts", Path(prompts), limit)
    loaded = model.load()
    messages = [text.prompt(loaded, task.turns[0]) for task in tasks]
    notes = fit(loaded, messages, output, nodes, widest, max_new_tokens, source=prompts)
    if as_json:
        print(json.dumps({"template": str(output)} | notes))
    else:
        told = f"{notes['steps']} forwards of {len(tasks)} prompts promise {notes['tokens_per_forward']:.2f}"
        err.print(f"{escape(str(output))}: {nodes} nodes, {told} tokens per forward")
