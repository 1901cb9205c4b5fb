"""Toy tasks of pointer networks, and their training. ``pointer.py`` measures; the tests train for a minute."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from decodery.model.pointer import PointerNetwork

Batch = tuple[Tensor, Tensor, Tensor]
"""Inputs ``[B, n, features]``, how many rows of each are there ``[B]``, and answers ``[B, t]``: positions, then n (the end)."""
Task = Callable[[int, np.random.Generator], Batch]


def padded(rows: list[np.ndarray], answers: list[list[int]]) -> Batch:
    """Inputs and answers of different lengths as one batch; an answer is filled up with ends."""
    n = max(map(len, rows))
    inputs = np.zeros((len(rows), n, rows[0].shape[1]), dtype=np.float32)
    for i, row in enumerate(rows):
        inputs[i, : len(row)] = row
    longest = max(map(len, answers)) + 1
    filled = torch.tensor([answer + [n] * (longest - len(answer)) for answer in answers])
    return torch.from_numpy(inputs), torch.tensor([len(row) for row in rows]), filled


def sorting(least: int, most: int) -> Task:
    """Numbers in [0, 1) -> their positions in rising order."""

    def batch(count: int, rng: np.random.Generator) -> Batch:
        rows = [rng.random((rng.integers(least, most + 1), 1)) for _ in range(count)]
        return padded(rows, [np.argsort(row[:, 0]).tolist() for row in rows])

    return batch


def hull_of(points: np.ndarray) -> list[int]:
    """Positions on the convex hull, counter-clockwise from the lowest position."""
    order = sorted(range(len(points)), key=lambda i: tuple(points[i]))

    def chain(places: list[int]) -> list[int]:
        out: list[int] = []
        for place in places:
            while len(out) > 1:
                (ax, ay), (bx, by), (cx, cy) = points[out[-2]], points[out[-1]], points[place]
                if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0:
                    break
                out.pop()
            out.append(place)
        return out[:-1]

    found = chain(order) + chain(order[::-1])
    first = found.index(min(found))
    return found[first:] + found[:first]


def hulls(least: int, most: int) -> Task:
    """Points in the unit square -> those on their convex hull, counter-clockwise from the lowest position."""

    def batch(count: int, rng: np.random.Generator) -> Batch:
        rows = [rng.random((rng.integers(least, most + 1), 2)) for _ in range(count)]
        return padded(rows, [hull_of(row) for row in rows])

    return batch


def tours(n: int) -> np.ndarray:
    """All round trips from place 0, each direction once."""
    return np.array([(0, *rest) for rest in itertools.permutations(range(1, n)) if rest[0] < rest[-1]])


def lengths_of(points: np.ndarray, routes: np.ndarray) -> np.ndarray:
    """``[B, n, 2]`` and ``[m, n]`` -> the length of each round trip ``[B, m]``."""
    visited = points[:, routes]
    return np.linalg.norm(visited - np.roll(visited, -1, axis=2), axis=-1).sum(-1)


def travelling(n: int) -> Task:
    """Places -> the shortest round trip from place 0, in the direction of the lower second place."""
    routes = tours(n)

    def batch(count: int, rng: np.random.Generator) -> Batch:
        points = rng.random((count, n, 2))
        best = lengths_of(points, routes).argmin(1)
        return padded(list(points), [routes[i].tolist() for i in best])

    return batch


def train(features: int, task: Task, steps: int, hidden: int = 64, count: int = 128, seed: int = 0) -> PointerNetwork:
    """Teacher forcing and cross-entropy with Adam, a warm-up and a cosine; ends behind the first one do not count."""
    torch.manual_seed(seed)
    rng, network = np.random.default_rng(seed), PointerNetwork(features, hidden)
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        inputs, there, answers = task(count, rng)
        n = inputs.shape[1]
        ends = (answers == n).cumsum(1) > 1
        logits = network(inputs, there, answers)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answers.masked_fill(ends, -100).flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
    return network.eval()
