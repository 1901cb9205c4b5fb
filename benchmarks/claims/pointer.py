"""Pointer networks: sorting, convex hulls and round trips, trained on one core, decoded by the engine."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from harness import record
from pointing import hulls, lengths_of, sorting, tours, train, travelling

import decodery
from decodery.model.pointer import PointerModel, PointerNetwork

SCALE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
ITEMS = int(sys.argv[2]) if len(sys.argv) > 2 else 200
WIDE = "beam:width=10,length_penalty=0,early_stopping=never"


def answer(network: PointerNetwork, inputs: torch.Tensor, **options: Any) -> decodery.Output:
    """What the engine decodes, greedily unless told otherwise."""
    model: Any = PointerModel(network, inputs)
    output: decodery.Output = decodery.decode(
        model, model.prompt, draft="none", plan="off", max_new_tokens=60, **options
    )
    return output


def trained(features: int, task: Any, steps: int, **options: Any) -> tuple[PointerNetwork, float]:
    """A network and the seconds it took."""
    start = time.perf_counter()
    network = train(features, task, int(steps * SCALE), **options)
    return network, round(time.perf_counter() - start, 1)


def right(network: PointerNetwork, task: Any, items: int = ITEMS, **options: Any) -> dict[str, float]:
    """Shares of exact answers and of answers in which no position comes twice."""
    rng, exact, legal = np.random.default_rng(11), 0, 0
    for _ in range(items):
        inputs, _, wanted = task(1, rng)
        tokens = answer(network, inputs[0], **options).tokens
        exact += tokens == wanted[0].tolist()
        legal += len(set(tokens)) == len(tokens)
    return {"exact": round(exact / items, 3), "no position twice": round(legal / items, 3)}


def area(points: np.ndarray, places: Sequence[int]) -> float:
    """The area of a polygon."""
    x, y = points[list(places)].T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def covered(network: PointerNetwork, task: Any, **options: Any) -> float:
    """The mean share of the hull's area that an answer covers."""
    rng, shares = np.random.default_rng(12), []
    for _ in range(ITEMS):
        inputs, _, wanted = task(1, rng)
        points, n = inputs[0].numpy().astype(float), inputs.shape[1]
        places = [token for token in answer(network, inputs[0], **options).tokens if token != n]
        shares.append(area(points, places) / area(points, [token for token in wanted[0].tolist() if token != n]))
    return round(statistics.mean(shares), 4)


def trips(
    network: PointerNetwork, n: int, decode: Callable[[torch.Tensor], Sequence[Sequence[int]]], items: int
) -> float:
    """The mean of the best answer's length by the shortest round trip's."""
    rng, ratios = np.random.default_rng(13), []
    for _ in range(items):
        inputs, _, _ = travelling(n)(1, rng)
        points = inputs.numpy().astype(float)
        found = np.array([[token for token in tokens if token != n] for tokens in decode(inputs[0])])
        ratios.append(lengths_of(points, found).min() / lengths_of(points, tours(n)).min())
    return round(statistics.mean(ratios), 5)


def main() -> None:
    told: dict[str, Any] = {}
    network, seconds = trained(1, sorting(5, 10), 5000)
    told["sorting, 5 to 10 numbers"] = {
        "training seconds": seconds,
        "n=10, once": right(network, sorting(10, 10), constrain="once"),
        "n=10, free": right(network, sorting(10, 10)),
        "n=10, once, beam 10": right(network, sorting(10, 10), constrain="once", search=WIDE),
        "n=15, once (longer than any trained on)": right(network, sorting(15, 15), constrain="once"),
    }
    print(told, flush=True)
    network, seconds = trained(2, travelling(6), 4000)
    every = "beam:width=720,length_penalty=0,early_stopping=never"
    told["round trips, 6 places"] = {
        "training seconds": seconds,
        "greedy, once: length by the shortest": trips(
            network, 6, lambda x: [answer(network, x, constrain="once").tokens], ITEMS
        ),
        "beam 10, once": trips(network, 6, lambda x: [answer(network, x, constrain="once", search=WIDE).tokens], ITEMS),
        "beam 720, shortest of its answers": trips(
            network,
            6,
            lambda x: [one.tokens for one in answer(network, x, constrain="once", search=every).candidates],
            min(ITEMS, 20),
        ),
    }
    print(told, flush=True)
    network, seconds = trained(2, hulls(5, 10), 5000)
    once: dict[str, Any] = {"constrain": {"once": {"all": False}}}
    told["convex hulls, 5 to 10 points"] = {
        "training seconds": seconds,
        "n=10, once": right(network, hulls(10, 10), **once),
        "n=10, once, beam 10": right(network, hulls(10, 10), search=WIDE, **once),
        "n=10, area covered": covered(network, hulls(10, 10), **once),
        "n=5, once": right(network, hulls(5, 5), **once),
        "n=20, area covered (longer than any trained on)": covered(network, hulls(20, 20), **once),
    }
    record("pointer-networks", told)


if __name__ == "__main__":
    main()
