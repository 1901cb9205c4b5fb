"""Many threads on one network, each with another recipe: every answer is what it is alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

import decodery
from decodery.change.layer_speedup import thin
from decodery.draft.model import ModelDraft
from decodery.draft.pearl import Pearl
from decodery.model.arena import Arena
from decodery.model.model import Model
from decodery.model.session import Session

from .test_decode import tokenizer
from .test_layer_drafters import deep

THREADS, ROUNDS = 8, 25


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(3, 61, (ROUNDS, 9), generator=generator).tolist()  # type: ignore[no-any-return]


def test_eight_recipes_at_once(monkeypatch: Any) -> None:
    """One answer of each is interrupted; at the end no cache holds anything."""
    net = deep()
    whole = Model(net, tokenizer(), "tiny")
    thinned = thin(Model(net, tokenizer(), "tiny"), 2)
    arenas: list[Arena] = []
    opened = Model.session

    def session(self: Model, *given: Any, **named: Any) -> Session:
        made = opened(self, *given, **named)
        if self is whole:  # the session of PEARL's thread is its own, and goes with the drafter
            arenas.append(made.arena)
        return made

    monkeypatch.setattr(Model, "session", session)
    options: dict[str, Any] = {"max_new_tokens": 8, "ignore_eos": True}

    def asks(**recipe: Any) -> Callable[[list[int]], list[int]]:
        return lambda prompt: decodery.decode(whole, prompt, **recipe, **options).tokens  # type: ignore[no-any-return]

    def interrupted(prompt: list[int]) -> list[int]:
        """Three pieces of a stream that is then dropped."""
        pieces = decodery.stream(whole, prompt, draft="layer-skip:speedup=2", **options)
        for _ in itertools.islice(pieces, 3):
            pass
        return list(pieces.output.tokens)

    kinds: list[Callable[[list[int]], list[int]]] = [
        asks(),
        interrupted,
        asks(draft={"swift": {"skip": 0.3, "window": 2, "interval": 1, "bayes": 3, "confidence": 0.1, "length": 3}}),
        asks(draft="del:every=1,pause=1"),
        asks(draft=ModelDraft(layers=(0, 5), length=2), guide="temperature:0.9", seed=7),
        asks(draft=Pearl(path=thinned, gamma=3)),
        asks(search="beam:3"),
        asks(guide="cfg:scale=1.7", draft="model:layers=[0,1,5],length=2"),
    ]
    assert len(kinds) == THREADS
    alone = [[answer(prompt) for prompt in prompts()] for answer in kinds]
    arenas.clear()
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(lambda answer=answer: [answer(prompt) for prompt in prompts()]) for answer in kinds]
        found = [job.result() for job in jobs]
    for i, (have, expected) in enumerate(zip(found, alone, strict=True)):
        assert have == expected, f"recipe {i}"
    assert not any("forward" in vars(module) for module in net.modules()), "something was left behind"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert len(arenas) >= THREADS * ROUNDS
    for arena in arenas:
        arena.check()
        assert not any(len(nodes.nodes) for nodes in (arena, *(a for _, a in arena._beside.values())))
