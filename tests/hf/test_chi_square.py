"""A tiny transformer sampled 20,000 times by the engine, against the law computed from its rows: a chi-square test.

The law suite enumerates toys in float64; this draws, with a network's own float32 logits and the production ``Seeded``.
The drafter, the guides, the verifier, the session and its arena really run for each sample. What is remembered is the
networks' rows, by the tokens before them: the same 20,000 times, they would be most of the time. That the engine over
the networks' own caches says the same is the last test here.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

import decodery
from decodery.core.chooser import Chooser, Seeded
from decodery.core.law import Law
from decodery.core.step import Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Tensor
from decodery.model.model import Model
from decodery.model.toy import ToyModel
from decodery.run.build import Built, build
from decodery.run.recipe import Recipe
from decodery.verify.residual import Residual

from ..laws.exact import wanted
from ..running import speculate, together
from .test_decode import tokenizer
from .tiny import SIZES

SAMPLES, VOCAB, LENGTH = 20_000, 8, 2
PROMPT = (3, 5, 3)
GUIDES = ("repetition:penalty=1.3", "temperature:0.8", "top-p:0.9")
FREE = ("temperature:1.0",)
EXPECTED = 5.0
"""Cells of fewer expected samples are counted together: below, chi-square is not what it says."""
ALPHA = 1e-3
NOISE = 0.5
"""Of the draft model's weights, relative; about 0.7 of its drafts are accepted."""


@cache
def network(noise: float) -> PreTrainedModel:
    """A random transformer of two layers over eight tokens, the same every time; with noise, one much like it."""
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": VOCAB, "num_hidden_layers": 2, "eos_token_id": None}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(LlamaConfig(**sizes), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
                parameter.add_(torch.randn_like(parameter), alpha=noise * float(parameter.std()))
    return model


class Remembered(ToyModel):
    """The face of a loaded model over a network's rows, each computed once; its draft model is a similar network."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(vocab=VOCAB)
        self.noise = noise
        self.lm = cache(lambda words: self._row(words))

    @torch.inference_mode()
    def _row(self, words: tuple[int, ...]) -> Tensor:
        return network(self.noise)(input_ids=torch.tensor([words]), use_cache=False).logits[0, -1].clone()

    def companion(self, spec: object) -> Remembered:
        return remembered(NOISE)


remembered = cache(Remembered)


PAIRS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "rsd-s + residual": ({"rsd-s": {"path": "similar", "width": 2, "length": 1}}, "residual", GUIDES),
    "recycling + sample-and-match": ("recycling", "sample-and-match", FREE),
    "aded + sample-and-match": ("aded:simulations=4,depth=2", "sample-and-match", FREE),
    "speculative-jacobi + residual": ("speculative-jacobi:window=2", "residual", FREE),
    "iid + spectr": ({"iid": {"path": "similar", "width": 2, "length": 1}}, "spectr", FREE),
    "model + residual": ({"model": {"path": "similar", "length": 2}}, "residual", FREE),
}
"""Drawn siblings, with and without replacement, certain trees, drawn chains. Each takes 6 to 17 seconds; the law suite has
all pairs."""
OTHERS = {
    GUIDES: (GUIDES[1:], (*GUIDES[:2], "top-p:0.95"), (GUIDES[0], "temperature:0.9", GUIDES[2])),
    FREE: (("temperature:0.8",), ("temperature:1.3",), (*FREE, "top-p:0.9")),
}


def made(pair: str, guides: tuple[str, ...] | None = None) -> Built:
    draft, verify, given = PAIRS[pair]
    return build(Recipe.of(draft, verify, guides or given), remembered())


def once(built: Built, rng: Chooser) -> tuple[int, ...]:
    """The first two tokens of an answer of three, so that drafts reach past them."""
    session, stop = remembered().session(PROMPT), Stop(max_new_tokens=LENGTH + 1)
    parts = (built.draft, built.verify, built.laws, built.constrain, rng, stop, built.want)
    for _ in together([speculate(session, *parts)]):
        if len(session.tokens) >= len(PROMPT) + LENGTH:
            break
    return tuple(session.tokens[len(PROMPT) :][:LENGTH])


@torch.inference_mode()
def sampled(built: Built, samples: int = SAMPLES) -> Counter[tuple[int, ...]]:
    rng = Seeded(2024)
    return Counter(once(built, rng) for _ in range(samples))


def fit(found: Counter[tuple[int, ...]], law: dict[tuple[int, ...], float]) -> float:
    """The chance of a worse fit than this if the law is right (the p-value of Pearson's chi-square)."""
    total = sum(found.values())
    cells: list[tuple[float, float]] = []
    rare_seen = rare = 0.0
    for words in {*found, *law}:
        seen, expected = found[words], total * law.get(words, 0.0)
        if expected >= EXPECTED:
            cells.append((seen, expected))
        else:
            rare_seen, rare = rare_seen + seen, rare + expected
    if rare > 0:
        cells.append((rare_seen, rare))
    elif rare_seen:
        return 0.0
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    freedom = torch.tensor((len(cells) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))


@pytest.mark.parametrize("pair", PAIRS)
def test_samples_follow_the_law_and_no_other(pair: str) -> None:
    """The law of these guides, and not that of slightly other ones."""
    found = sampled(made(pair))
    assert sum(found.values()) == SAMPLES
    assert fit(found, wanted(remembered(), made(pair), LENGTH, PROMPT)) > ALPHA
    for other in OTHERS[PAIRS[pair][2]]:
        assert fit(found, wanted(remembered(), made(pair, other), LENGTH, PROMPT)) < 1e-9


@dataclass
class DrawsAgain(Residual):
    """Wrong: after a refusal it draws from p, as if nothing had been refused."""

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        verdict = super().__call__(tree, p, rows, rng)
        if len(verdict.path) == len(tree) or not verdict.extra:
            return verdict
        row = rows.at(verdict.path[-1] if verdict.path else ROOT)
        assert row is not None
        law = p.row(row)
        assert law is not None
        return Verdict(verdict.path, (rng.pick(law),))


@dataclass
class WeighsByNow(Residual):
    """Wrong: it takes each guess for a draw from the law that stands there now, and so accepts them all."""

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        for node, parent in enumerate(tree.parents):
            if tree.kinds[node] and (row := rows.at(parent)) is not None:
                tree.q[node] = p.row(row)
        return super().__call__(tree, p, rows, rng)


@pytest.mark.parametrize(
    ("pair", "wrong"),
    [
        ("rsd-s + residual", DrawsAgain()),
        ("speculative-jacobi + residual", WeighsByNow()),
        ("model + residual", DrawsAgain()),
    ],
)
def test_a_wrong_verifier_does_not(pair: str, wrong: Residual) -> None:
    """A tenth of the samples is enough to see it."""
    built = dataclasses.replace(made(pair), verify=wrong)
    law = wanted(remembered(), built, LENGTH, PROMPT)
    assert fit(sampled(built, SAMPLES // 10), law) < 1e-9


def test_fit_is_pearsons() -> None:
    """Against tabulated quantiles: 11.345 at three degrees of freedom is 1 %; and what cannot be is noticed."""
    law = {(i,): 0.25 for i in range(4)}
    off = math.sqrt(11.345 * 250 / 2)
    found = Counter({(0,): 250 + off, (1,): 250 - off, (2,): 250, (3,): 250})
    assert fit(found, law) == pytest.approx(0.01, abs=1e-5)  # type: ignore[arg-type]
    assert fit(Counter({(0,): 250, (1,): 250, (2,): 250, (3,): 249, (4,): 1}), law) == 0.0
    assert fit(Counter({(0,): 996, (1,): 4}), {(0,): 0.996, (1,): 0.003, (2,): 0.001}) == pytest.approx(1.0)


@pytest.mark.parametrize("pair", PAIRS)
def test_what_is_remembered_changes_nothing(pair: str) -> None:
    """The public ``decode`` over the networks' own caches gives the same tokens for the same seeds."""
    real, similar = (Model(network(noise), tokenizer(), "tiny") for noise in (0.0, NOISE))
    draft, verify, guides = PAIRS[pair]
    if isinstance(draft, dict):
        draft = {name: {**options, "path": similar} for name, options in draft.items()}
    for seed in range(25):
        output = decodery.decode(
            real,
            list(PROMPT),
            draft=draft,
            verify=verify,
            guide=guides,
            seed=seed,
            max_new_tokens=LENGTH + 1,
            ignore_eos=True,
        )
        assert tuple(output.tokens[:LENGTH]) == once(made(pair), Seeded(seed, 0))
