"""Drafts by a part of a network's layers, sampled by the engine, against the law of its rows: a chi-square test.

As ``test_chi_square``: what is remembered is rows, by the tokens before them, how many of these all layers saw, and the
layers. The search of SWIFT goes on from sample to sample, so its set changes under way.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from decodery.core.chooser import Seeded
from decodery.core.step import Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import Tensor
from decodery.model.arena import Answer, Arena, Feed, Handle
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.toy import ToyArena, ToyModel
from decodery.model.turn import forward
from decodery.model.variant import PLAIN, Variant
from decodery.model.view import View
from decodery.run.build import Built, build
from decodery.run.recipe import Recipe
from decodery.verify.residual import Residual

from ..laws.exact import wanted
from ..running import speculate, together
from .test_chi_square import ALPHA, GUIDES, fit
from .tiny import SIZES

SAMPLES, VOCAB, DEPTH, LENGTH, PROMPT = 3000, 5, 4, 2, (3, 4, 3)
MIDDLE = 2.0
"""How much the middle layers weigh: drafts without them are accepted and refused."""


@cache
def network() -> PreTrainedModel:
    """A random transformer of four layers over five tokens, the middle ones of little weight."""
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": VOCAB, "num_hidden_layers": DEPTH, "eos_token_id": None}
    model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**sizes), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
        for layer in model.model.layers[1:3]:
            layer.self_attn.o_proj.weight.mul_(MIDDLE)
            layer.mlp.down_proj.weight.mul_(MIDDLE)
    tiny: PreTrainedModel = model
    return tiny


@cache
@torch.inference_mode()
def row(words: tuple[int, ...], whole: int, variant: Variant = PLAIN) -> Tensor:
    """The row after these words, the first ``whole`` of them through all layers, the rest through some."""
    session = Session(SlotArena(TorchBackend(network())), words[:whole])
    if variant == PLAIN:
        return forward(session).logits[-1].clone()
    forward(session)
    view = View(session, variant)
    view.commit([words[whole]])
    return forward(view, TokenTree.chain(words[whole + 1 :])).logits[-1].clone()


class PartArena(ToyArena):
    """Knows which of its nodes all layers have seen."""

    def __init__(self) -> None:
        super().__init__(lambda words: row(words, len(words)), lambda _: torch.zeros(VOCAB))
        self._whole: set[Handle] = set()

    def _compute(self, feed: Feed) -> Answer:
        if feed.variant == PLAIN:
            self._whole |= set(feed.handles)
            return super()._compute(feed)
        rows = []
        for handle in feed.handles:
            if handle in feed.wanted:
                words, whole = tuple(self.words(handle)), 0
                while handle >= 0:
                    whole, handle = whole + (handle in self._whole), self.nodes[handle].parent
                rows.append(row(words, whole, feed.variant))
        return Answer(torch.stack(rows))


class Remembered(ToyModel):
    """The face of a loaded model over the network's rows."""

    def __init__(self) -> None:
        super().__init__(vocab=VOCAB, depth=DEPTH)
        self.lm = lambda words: row(words, len(words))

    def arena(self, lanes: int = 1) -> Arena:
        return PartArena()


DRAFTS: dict[str, Any] = {
    "swift": {"skip": 0.5, "window": 1, "interval": 1, "bayes": 3, "confidence": 0.1, "length": 2, "enough": 1.0},
    "easyspec": {"group": 2, "length": 2},
}


def made(name: str) -> Built:
    return build(Recipe.of({name: DRAFTS[name]}, "residual", GUIDES), Remembered())


def sampled(built: Built, samples: int) -> tuple[Counter[tuple[int, ...]], int, int]:
    """The first two tokens of answers of three; how many drafts were accepted, and how many refused."""
    rng, found, accepted, drafted = Seeded(2024), Counter[tuple[int, ...]](), 0, 0
    for _ in range(samples):
        session, stop = Remembered().session(PROMPT), Stop(max_new_tokens=LENGTH + 1)
        parts = (copy.copy(built.draft), built.verify, built.laws, built.constrain, rng, stop, built.want)
        for _, step in together([speculate(session, *parts)]):
            accepted, drafted = accepted + len(step.verdict.path), drafted + len(step.tree)
        found[tuple(session.tokens[len(PROMPT) :][:LENGTH])] += 1
    return found, accepted, drafted - accepted


class TakesAll(Residual):
    """Wrong: it believes every first child."""

    def __call__(self, tree: TokenTree, *rest: Any) -> Verdict:
        verdict = super().__call__(tree, *rest)
        return verdict if verdict.path or not len(tree) else Verdict((0,))


@pytest.mark.parametrize("name", DRAFTS)
def test_samples_follow_the_law(name: str) -> None:
    built = made(name)
    law = wanted(Remembered(), built, LENGTH, PROMPT)
    found, accepted, refused = sampled(built, SAMPLES)
    assert fit(found, law) > ALPHA
    assert accepted > SAMPLES / 20
    assert refused > SAMPLES / 20
    wrong, *_ = sampled(dataclasses.replace(made(name), verify=TakesAll()), SAMPLES)
    assert fit(wrong, law) < 1e-9
