"""What is timed: Decodery's methods and its peers, all behind one call."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from decodery.core.errors import DecoderyError
from decodery.core.stats import Stats
from decodery.core.values import Tensor
from decodery.model.model import Model
from decodery.model.resolve import DEMO, demo_file
from decodery.run.api import stream
from decodery.run.build import build
from decodery.run.load import load
from decodery.run.recipe import Recipe
from decodery.run.registry import names as names_of

PLAIN = "none"
"""The method all others are compared with; its answers are the history of later turns."""

Mark = Callable[[Sequence[int]], None]
"""To be called with each burst of new tokens the moment they are known."""


class Runner(Protocol):
    """Decoding by one method.

    A call continues ``prompt`` (token ids) by at most ``limit`` tokens and tells ``mark`` each burst of them as it comes;
    a token that ends the answer is told too, what comes after it is ignored. Unless asked to, it keeps nothing between calls.
    """

    name: str

    def __call__(self, prompt: list[int], limit: int, mark: Mark) -> Told: ...


@dataclass
class Told:
    """What a runner knows beyond its tokens.

    ``forwards``: passes of the target; ``stats``: of our own engine; ``gaps``: between the two best logits.
    """

    forwards: int | None = None
    stats: Stats | None = None
    gaps: Sequence[float] = ()


@dataclass
class Ours:
    """A method of our own: a drafter's spec, or ``DRAFT&VERIFY``; greedy unless a guide samples (always the same draws).

    ``parts``: the other parts, as a recipe has them. ``keep``: the drafter remembers earlier prompts.
    """

    name: str
    model: Model
    method: str
    plan: str = "auto"
    parts: Mapping[str, Any] = field(default_factory=dict)
    keep: bool = False

    def __post_init__(self) -> None:
        self._kept = self._recipe()

    def __call__(self, prompt: list[int], limit: int, mark: Mark) -> Told:
        recipe = self._kept if self.keep else self._recipe()
        pieces = stream(self.model, prompt, recipe=recipe, max_new_tokens=limit, plan=self.plan, seed=0)
        firsts: list[Tensor] = []
        for piece in pieces:
            if piece.step is not None:
                mark(piece.step.tokens)
                firsts.append(piece.step.p.logits[0])
        best = [row.topk(2).values for row in firsts]
        return Told(pieces.output.stats.forwards, pieces.output.stats, [float(a - b) for a, b in best])

    def _recipe(self) -> Recipe:
        draft, _, verify = self.method.partition("&")
        return Recipe.from_dict({**self.parts, "draft": draft, **({"verify": verify} if verify else {})})


PEERS: dict[str, tuple[str, str, str]] = {
    "transformers": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "transformers-lookup": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "transformers-compiled": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "transformers-assisted": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "openvino": ("decodery.bench.openvino_peer:GenAiPeer", "openvino_genai", "openvino-genai"),
    "openvino-lookup": ("decodery.bench.openvino_peer:GenAiPeer", "openvino_genai", "openvino-genai"),
    "openvino-gguf": ("decodery.bench.openvino_peer:GenAiPeer", "openvino_genai", "openvino-genai"),
    "llamacpp": ("decodery.bench.llamacpp_peer:LlamaPeer", "llama_cpp", "llama-cpp-python"),
    "llamacpp-lookup": ("decodery.bench.llamacpp_peer:LlamaPeer", "llama_cpp", "llama-cpp-python"),
}
"""Peer -> its adapter, the module it needs, and what to install."""


def is_peer(name: str) -> bool:
    """Whether a runner is not one of our methods."""
    return name.partition("=")[0] in PEERS


def peer_names(text: str) -> list[str]:
    """``"transformers,openvino-lookup"`` -> names; a family's name stands for its plain and its prompt-lookup mode.

    ``transformers-assisted=SPEC`` names the assistant model. Raises ``DecoderyError`` for unknown names.
    """
    names: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        if item.partition("=")[0] not in PEERS:
            raise DecoderyError(f"there is no peer {item!r}; peers: {', '.join(PEERS)}")
        names += [item, *([f"{item}-lookup"] if f"{item}-lookup" in PEERS else [])]
    return list(dict.fromkeys(names))


def installed(text: str) -> tuple[list[str], list[str]]:
    """The peers of ``peer_names`` that are installed, and why the others are left out."""
    found, absent = list[str](), list[str]()
    for name in peer_names(text):
        _, module, package = PEERS[name.partition("=")[0]]
        if importlib.util.find_spec(module) is None:
            absent.append(f"{name} is left out: it needs pip install {package}")
        else:
            found.append(name)
    return found, absent


def peer(name: str, spec: str, model: Model) -> Runner:
    """The adapter of a peer for the model at ``spec``. Raises ``DecoderyError`` where it is not installed or cannot run it."""
    kind, _, option = name.partition("=")
    _, absent = installed(name)
    if absent:
        raise DecoderyError(absent[0])
    target, _, _ = PEERS[kind]
    place, _, adapter = target.partition(":")
    make: Any = getattr(import_module(place), adapter)
    runner: Runner = make(name, spec, model, kind.partition("-")[2], option)
    return runner


def peers_fit(loading: Mapping[str, Any]) -> None:
    """Raise ``DecoderyError`` where options of ``load`` make another model than the one that peers read from disk."""
    if other := [name for name in ("revision", "trust_remote_code", "change") if loading.get(name)]:
        raise DecoderyError(
            f"peers such as transformers read the model as it is on disk: leave out --{other[0].replace('_', '-')}"
        )


def gguf_of(name: str, spec: str) -> Path:
    """The GGUF file of a model. Raises ``DecoderyError`` where it has none, and the peer ``name`` reads nothing else."""
    file = demo_file() if spec == DEMO else Path(spec)
    if file.suffix != ".gguf":
        raise DecoderyError(f"{name} is left out: it reads .gguf files, not {spec}")
    return file


ALL = "all-training-free"
"""Stands for every drafter that runs as it is, on the chosen backend or, where it needs what that has not, on torch."""


def methods(
    names: Sequence[str],
    spec: str,
    backend: str,
    plan: str,
    models: dict[str, Model],
    parts: Mapping[str, Any] = MappingProxyType({}),
    keep: bool = False,
    loading: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[list[Ours], list[str]]:
    """Our runners, and why some of ``ALL`` are left out.

    ``draft@backend`` picks another backend for one method; ``models`` keeps the loaded ones.
    """

    def model(where: str) -> Model:
        if where not in models:
            models[where] = load(spec, backend=where, **loading)
        return models[where]

    wanted, left_out = list(names), list[str]()
    if ALL in wanted:
        at = wanted.index(ALL)
        wanted[at : at + 1] = [_runnable(name, backend, model, left_out) for name in names_of("draft")]
        if any(name.endswith("@torch") for name in wanted):
            wanted.append(f"{PLAIN}@torch")
    found = []
    for name in filter(None, dict.fromkeys(wanted)):
        draft, _, own = name.partition("@")
        where = own or backend
        found.append(Ours(name, model(where), draft, plan, parts, keep))
    return found, left_out


def _runnable(name: str, backend: str, model: Callable[[str], Model], left_out: list[str]) -> str:
    """The drafter on the first backend that takes it; empty, with the reason noted, where none does."""
    reason = ""
    for where, method in ((backend, name), ("torch", f"{name}@torch")):
        try:
            build(Recipe.of(draft=name), model(where))
            return method
        except DecoderyError as error:
            reason = str(error)
    left_out.append(f"{name}: {reason}")
    return ""
