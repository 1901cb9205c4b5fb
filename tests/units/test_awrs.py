"""AWRS and resampling by their definitions: every order of draws enumerated."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.search.lib.awrs import NODES, SHARES, Urn, awrs, masked, with_replacement, without_replacement
from decodery.search.lib.resampling import METHODS, effective, log_mean, normalised


def drawn(vocab: int, seed: int, sharpness: float = 1.5) -> tuple[torch.Tensor, list[bool]]:
    """A random law and which tokens are allowed."""
    rng = random.Random(seed)
    p = torch.tensor([rng.gauss(0, sharpness) for _ in range(vocab)], dtype=torch.float64).softmax(0)
    return p, [rng.random() < 0.5 for _ in range(vocab)]


@pytest.mark.parametrize("accepts", [2, 3, 4])
@pytest.mark.parametrize("method", [without_replacement, with_replacement, awrs])
@pytest.mark.parametrize("seed", range(20))
def test_weights_are_unbiased(seed: int, method: Any, accepts: int) -> None:
    """E[w 1(X = x)] = p(x) ok(x) for every token, by enumeration of all orders of draws."""
    p, allowed = drawn(5, seed, sharpness=3.0 if seed % 2 else 1.0)
    extra = () if method is without_replacement else (accepts,)

    def once(rng: Chooser) -> tuple[int | None, float]:
        return tuple(method(p, lambda token: allowed[token], rng, *extra))  # type: ignore[return-value]

    expected: dict[int | None, float] = defaultdict(float)
    for (token, log_weight), chance in enumerate_law(once).items():
        assert token is None or allowed[token]
        expected[token] += chance * math.exp(log_weight)
    for token, ok in enumerate(allowed):
        assert expected[token] == pytest.approx(float(p[token]) * ok, abs=1e-9)


def asked_about(p: torch.Tensor, seed: int, allowed: bool, accepts: int = 2) -> list[int]:
    """The tokens that a draw asks about where all are allowed, or none."""
    asked: list[int] = []

    def accept(token: int) -> bool:
        asked.append(token)
        return allowed

    draw = awrs(p, accept, Seeded(seed), accepts)
    assert (draw.token is not None) == allowed
    assert draw.log_weight == (0.0 if allowed else -math.inf)
    return asked


@pytest.mark.parametrize("accepts", [2, 5])
@pytest.mark.parametrize("sharpness", [0.5, 8.0])
def test_all_allowed_weighs_nothing_and_none_allowed_ends(accepts: int, sharpness: float) -> None:
    p, _ = drawn(50, 1, sharpness)
    for seed in range(20):
        asked_about(p, seed, True, accepts)
        assert sorted(asked_about(p, seed, False, accepts)) == list(range(50))  # each once


def test_only_a_sure_law_is_drawn_from_with_replacement() -> None:
    """Where one token is nearly certain it is mostly asked about alone; two draws without replacement ask about two."""
    sure = torch.tensor([0.97, 0.02, 0.01], dtype=torch.float64)
    assert sum(len(asked_about(sure, seed, True)) == 1 for seed in range(200)) > 180
    flat = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    assert all(len(asked_about(flat, seed, True)) == 2 for seed in range(20))


@pytest.mark.parametrize("refused", [1, 3, 40, 400])
@pytest.mark.parametrize("left", [0.9, 1e-3, 1e-9])
def test_the_integral_is_that_of_the_negative_binomial(refused: int, left: float) -> None:
    """Where the last draws see the mass ``left``: the sum over all numbers of phantom rejections, or its limit."""
    logs = refused * torch.log1p(-torch.tensor(NODES)) - 2 * torch.log1p((1 - left) / left * torch.tensor(NODES))
    got = float(torch.tensor(SHARES) @ logs.exp())
    if left > 0.5:  # the sum converges quickly: two geometric variables with success probability left
        chances = [(n + 1) * left**2 * (1 - left) ** n for n in range(400)]
        assert got == pytest.approx(sum(c / (1 + refused + n) for n, c in enumerate(chances)), rel=1e-10)
    else:
        steps = torch.linspace(0, 46, 2_000_001, dtype=torch.float64)
        u = (-steps).exp()
        values = u * (refused * torch.log1p(-u.clamp(max=1 - 1e-15)) - 2 * torch.log1p((1 - left) / left * u)).exp()
        assert got == pytest.approx(float(torch.trapezoid(values, steps)), rel=1e-8)


@pytest.mark.parametrize("p", [[0.5, 0.4, 0.0999, 0.0001], [0.9, 0.0, 0.0999, 0.0001]])
def test_what_is_hardly_left_is_not_asked_about(p: list[float]) -> None:
    """Neither estimator asks about the last ten-thousandth once all else was refused."""
    for seed in range(50):
        asked: list[int] = []
        draw = awrs(torch.tensor(p, dtype=torch.float64), lambda t, a=asked: bool(a.append(t)), Seeded(seed), 2, 0.001)  # type: ignore[misc]
        assert draw == (None, -math.inf)
        assert asked[-1] != 3
        assert len(asked) >= sum(chance > 0.001 for chance in p)


def test_many_tokens_are_drawn_by_blocks() -> None:
    """Each with its own chance, by enumeration, and each once."""
    p, _ = drawn(600, 3)
    law = enumerate_law(Urn(p).pick)
    assert torch.allclose(
        torch.tensor([law.get(token, 0.0) for token in range(600)], dtype=torch.float64), p, atol=1e-12
    )
    urn, rng, seen = Urn(p), Seeded(1), []
    while urn.mass > 0:
        seen.append(urn.pick(rng))
        assert urn.take(seen[-1]) == pytest.approx(float(p[seen[-1]]))
    assert sorted(seen) == list(range(600))


def test_a_mask_gives_the_allowed_mass_itself() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    draw = masked(p, torch.tensor([False, True, True]), Seeded(1))
    assert draw.token in (1, 2)
    assert draw.log_weight == pytest.approx(math.log(0.5))
    assert masked(p, torch.zeros(3, dtype=torch.bool), Seeded(1)) == (None, -math.inf)
    assert masked(p, None, Seeded(1)).log_weight == pytest.approx(0.0)


@pytest.mark.parametrize(
    "weights", [(0.5, 0.25, 0.25), (0.61, 0.3, 0.09), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.2,) * 5]
)
@pytest.mark.parametrize("name", METHODS)
def test_resampling_gives_each_particle_its_share_of_heirs(name: str, weights: tuple[float, ...]) -> None:
    """On average exactly n times the weight; all but multinomial never more than one off (stratified: two)."""
    law = enumerate_law(lambda rng: tuple(METHODS[name](weights, rng)))
    heirs: Counter[int] = Counter()
    for parents, chance in law.items():
        assert len(parents) == len(weights)
        for i, count in Counter(parents).items():
            heirs[i] += chance * count  # type: ignore[assignment]
            if name == "systematic":
                assert abs(count - len(weights) * weights[i]) < 1
            if name == "residual":
                assert count >= math.floor(len(weights) * weights[i])
    for i, weight in enumerate(weights):
        assert heirs[i] == pytest.approx(len(weights) * weight, abs=1e-9)


def test_equal_weights_are_left_alone_by_all_but_multinomial() -> None:
    for name in ("systematic", "stratified", "residual"):
        assert sorted(METHODS[name]([0.25] * 4, Seeded(1))) == [0, 1, 2, 3]


def test_figures_of_weights() -> None:
    assert effective([0.25] * 4) == pytest.approx(4)
    assert effective([1.0, 0.0]) == pytest.approx(1)
    assert log_mean([0.0, -math.inf]) == pytest.approx(math.log(0.5))
    assert log_mean([-math.inf, -math.inf]) == -math.inf
    assert normalised([-1000.0, -1000.0]) == pytest.approx([0.5, 0.5])
