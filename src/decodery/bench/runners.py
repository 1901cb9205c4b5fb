"""What is timed: Decodery's methods and its peers, all behind one call."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from decodery.engine import stream
from decodery.errors import DecoderyError
from decodery.model.load import load
from decodery.model.model import Model
from decodery.stats import Stats
from decodery.words import Tensor

Mark = Callable[[Sequence[int]], None]
"""To be called with each burst of new tokens the moment they are known."""


class Runner(Protocol):
    """Greedy decoding by one method.

    A call continues ``prompt`` (token ids) by at most ``limit`` tokens and tells ``mark`` each burst of them as it comes;
    a token that ends the answer is told too, what comes after it is ignored. Nothing is kept between two calls.
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
    """A method of our own: a drafter's spec."""

    name: str
    model: Model
    draft: str
    plan: str = "auto"

    def __call__(self, prompt: list[int], limit: int, mark: Mark) -> Told:
        pieces = stream(self.model, prompt, draft=self.draft, max_new_tokens=limit, plan=self.plan)
        firsts: list[Tensor] = []
        for piece in pieces:
            if piece.step is not None:
                mark(piece.step.tokens)
                firsts.append(piece.step.p.logits[0])
        best = [row.topk(2).values for row in firsts]
        return Told(pieces.output.stats.forwards, pieces.output.stats, [float(a - b) for a, b in best])


PEERS: dict[str, tuple[str, str, str]] = {
    "transformers": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "transformers-lookup": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "transformers-assisted": ("decodery.bench.transformers_peer:TransformersPeer", "transformers", "transformers"),
    "openvino": ("decodery.bench.openvino_peer:GenAiPeer", "openvino_genai", "openvino-genai"),
    "openvino-lookup": ("decodery.bench.openvino_peer:GenAiPeer", "openvino_genai", "openvino-genai"),
    "llamacpp": ("decodery.bench.llamacpp_peer:LlamaPeer", "llama_cpp", "llama-cpp-python"),
    "llamacpp-lookup": ("decodery.bench.llamacpp_peer:LlamaPeer", "llama_cpp", "llama-cpp-python"),
}
"""Peer -> its adapter, the module it needs, and what to install."""


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


def peer(name: str, spec: str, model: Model) -> Runner:
    """The adapter of a peer for the model at ``spec``. Raises ``DecoderyError`` where it is not installed or cannot run it."""
    kind, _, option = name.partition("=")
    target, module, package = PEERS[kind]
    if importlib.util.find_spec(module) is None:
        raise DecoderyError(f"{name} is left out: it needs pip install {package}")
    place, _, adapter = target.partition(":")
    make: Any = getattr(import_module(place), adapter)
    runner: Runner = make(name, spec, model, kind.partition("-")[2], option)
    return runner


def methods(names: Sequence[str], spec: str, backend: str, plan: str, models: dict[str, Model]) -> list[Ours]:
    """Our runners. ``draft@backend`` picks another backend for one method; ``models`` keeps the loaded ones."""
    found = []
    for name in names:
        draft, _, own = name.partition("@")
        where = own or backend
        if where not in models:
            models[where] = load(spec, backend=where)
        found.append(Ours(name, models[where], draft, plan))
    return found
