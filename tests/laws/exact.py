"""What tests of single parts need of the laws, by the names they know."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch

from decodery.core.part import Part
from decodery.laws.engine import LENGTH, PROMPT, Count, Law, produced, variation, wanted
from decodery.laws.specimens import specimens
from decodery.run.recipe import Recipe

__all__ = [
    "LENGTH",
    "PROMPT",
    "Count",
    "Law",
    "all_sequences",
    "produced",
    "recipe",
    "specimens",
    "variation",
    "wanted",
]


def recipe(
    draft: Part, verify: Part | None = None, guides: Sequence[Part] = (), constrain: Part | None = None
) -> Recipe:
    return Recipe.of(draft, verify, guides, constrain or "none")  # type: ignore[arg-type]


def all_sequences(vocab: int, length: int) -> Iterator[tuple[int, ...]]:
    yield from itertools.product(range(vocab), repeat=length)


torch.set_num_threads(1)
