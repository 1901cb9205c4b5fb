"""Where the graph of a model is kept, and what lies beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodery.model.diskcache import cache_dir, digest, digest_of_folder
from decodery.model.facts import Facts, Reach
from decodery.model.resolve import Place

if TYPE_CHECKING:
    from decodery.model.change import Change

FORMAT = 9
"""Of the converted graph; raise it when the conversion, or what a ``Change`` does to a graph, is another."""

GRAPH = "model.xml"

PAGED = "paged"
"""A file beside a graph whose rows are right over paged attention too: why it gives no hidden states; empty where it does."""

UNPAGED = "unpaged"
"""A file beside any other graph: why it runs without paged attention."""

NOTES = "compiled"
"""The folder beside a graph for what its compiler finds out; ``convert.py`` makes it where that is small."""

FACTS = "facts.json"
"""The facts of the network beside its graph."""


def folder_of(place: Place, change: Sequence[Change] = (), **where: Any) -> Path:
    """Where the graph of the model at ``place`` is kept: another folder for any other content of the model's files."""
    path, content = place.path, [digest(place.gguf)] if place.gguf else []
    if Path(path).is_dir():
        content.append(digest_of_folder(Path(path)))
    else:
        from decodery.model.checkpoint import config_of

        config = config_of(path, **where)
        content += [path, str(getattr(config, "_commit_hash", None)), config.to_json_string()]
    facts = (FORMAT, content, [repr(part) for part in change], version("transformers"), version("openvino"))
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    kind = "-".join(["openvino", *(type(part).__name__.lower() for part in change)])
    return cache_dir() / f"{Path(path).name}-{kind}-{key}"


def keep_facts(folder: Path, facts: Facts) -> None:
    """Write the facts of a network beside its graph."""
    (folder / FACTS).write_text(json.dumps(facts._asdict()))


def facts_in(folder: Path) -> Facts:
    """The facts that were kept."""
    facts = Facts(**json.loads((folder / FACTS).read_text()))
    return facts._replace(windows={kind: Reach(*reach) for kind, reach in facts.windows.items()})
