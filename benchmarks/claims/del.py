"""DEL on a network trained for early exits: its choice against every fixed exit and length, in tokens per layer.

Six layers over characters, trained for some minutes with a loss at every exit, later ones weighing more. A round costs
all layers once and, for each draft, those up to the exit (the paper's count).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from harness import record
from small import characters, llama, loaded, pieces, train
from torch.nn.functional import cross_entropy

import decodery
from decodery.core.part import Asking
from decodery.core.tree import TokenTree
from decodery.draft.dynamic_exit import DynamicExit
from decodery.draft.layer_skip import LayerSkip
from decodery.model.variant import through

DEPTH, WIDTH, STEPS, NEW = 6, 128, 500, 192
EXITS, LENGTHS = range(1, DEPTH), (1, 2, 3, 4, 6, 8, 11, 14, 17)


@dataclass
class Fixed(LayerSkip):
    """Always this exit, always this length."""

    exit: int = 1
    layers: Counter[str] = field(default_factory=Counter)

    def bind(self, model: Any) -> Self:
        self._variant = through(range(self.exit))
        return self

    def proposing(self, *rest: Any) -> Asking[TokenTree]:
        tree = yield from super().proposing(*rest)
        self.layers["run"] += DEPTH + self.exit * len(tree)
        return tree


@dataclass
class Dynamic(DynamicExit):
    """DEL as it is, or without the threshold that ends a draft; its layers and choices counted."""

    threshold: bool = True
    layers: Counter[str] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)

    def proposing(self, *rest: Any) -> Asking[TokenTree]:
        exit = len(self._session.variant.layers or ())
        self._threshold *= self.threshold
        tree = yield from super().proposing(*rest)
        self.layers["run"] += DEPTH + exit * len(tree)
        self.chosen[f"{exit}, {self._length}"] += 1
        return tree


def run(model: Any, prompts: list[list[int]], draft: Any, guide: list[str]) -> dict[str, Any]:
    """One prompt after another through the engine."""
    options: dict[str, Any] = {"draft": draft, "guide": guide, "seed": 1, "max_new_tokens": NEW, "ignore_eos": True}
    found = [decodery.decode(model, prompt, **options).stats for prompt in prompts]
    total = {k: sum(getattr(stats, k) for stats in found) for k in ("tokens", "forwards", "drafted", "accepted")}
    return {
        "tokens per layer": round(total["tokens"] / draft.layers["run"], 4),
        "tokens per forward": round(total["tokens"] / total["forwards"], 3),
        "acceptance": round(total["accepted"] / total["drafted"], 3),
    }


def main() -> None:
    known, unseen, alphabet = characters()
    net = llama(len(alphabet), DEPTH, WIDTH)
    weights = torch.arange(1.0, DEPTH + 1) / (DEPTH * (DEPTH + 1) / 2)

    def losses(batch: torch.Tensor) -> torch.Tensor:
        *early, last = net.model(input_ids=batch, use_cache=False, output_hidden_states=True).hidden_states[1:]
        states = [*map(net.model.norm, early), last]  # the last one comes normed
        logits = [net.lm_head(part)[:, :-1].flatten(0, 1) for part in states]
        return torch.stack([cross_entropy(part, batch[:, 1:].flatten()) for part in logits])

    train(net, pieces(known, 16, 128), lambda batch, _: weights @ losses(batch), STEPS)
    model, batch = loaded(net), pieces(unseen, 64, 128)(torch.Generator().manual_seed(1))
    claims: dict[str, Any] = {"nats a character after each exit": [round(x, 3) for x in losses(batch).tolist()]}
    prompts = [unseen[i : i + 64].tolist() for i in range(0, 6 * 2000, 2000)]
    for name, guide in (("greedy", []), ("temperature 0.7", ["temperature:0.7"])):
        fixed = {(e, k): run(model, prompts, Fixed(exit=e, length=k), guide) for e in EXITS for k in LENGTHS}
        best = max(fixed, key=lambda pair: fixed[pair]["tokens per layer"])
        found: dict[str, Any] = {"best fixed exit and length": best, "best fixed": fixed[best]}
        for kind, threshold in {"del": True, "del without its threshold": False}.items():
            draft = Dynamic(every=1, head=0.0, pause=1, threshold=threshold)
            found[kind] = run(model, prompts, draft, guide)
            found[kind]["by best fixed"] = round(found[kind]["tokens per layer"] / fixed[best]["tokens per layer"], 3)
            found[kind]["most frequent choices"] = dict(draft.chosen.most_common(6))
        claims[name] = found | {"fixed, tokens per layer": {str(p): r["tokens per layer"] for p, r in fixed.items()}}
    record("del-dynamic-exit-layer", claims)


if __name__ == "__main__":
    main()
