"""``Want(trunk=True)``: the states of all committed tokens are those of a pass without a cache, whatever was done before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.core.tree import TokenTree
from decodery.core.values import Site, Want
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.turn import forward

from .test_arena import TOKENS, examined, trees, verdict
from .tiny import network

SITES: tuple[int | Site, ...] = (0, 1, Site.FINAL)
WANT = Want(frozenset(SITES), trunk=True)


@torch.inference_mode()
def truth(name: str, words: list[int]) -> dict[int | Site, torch.Tensor]:
    """The states of all tokens, without a cache."""
    states = network(name)(input_ids=torch.tensor([words]), use_cache=False, output_hidden_states=True).hidden_states
    return {0: states[1][0], 1: states[2][0], Site.FINAL: states[-1][0]}


def agree(name: str, session: Session, want: Want = WANT) -> None:
    """The states of what is in the cache; those of the tokens that are pending come with the next pass."""
    whole = truth(name, session.tokens)
    for site in want.hidden:
        have = session.states(site)
        assert len(have) == session.cached >= len(session.tokens) - 1
        expected = whole[site][: len(have)]
        torch.testing.assert_close(have, expected, atol=1e-3 * float(expected.std()) + 1e-4, rtol=1e-3)
        if len(have) > 1:
            torch.testing.assert_close(session.states(site, 1, 3), have[1:3])


def passed(name: str, session: Session, tree: TokenTree | None = None) -> None:
    """A pass that keeps states, and a look at all of them."""
    forward(session, tree or TokenTree(), WANT)
    assert session.cached == len(session.tokens)
    agree(name, session)


@pytest.mark.parametrize("name", ["llama", "gemma3 (sliding and full)"])
def test_prompt_and_answer(name: str) -> None:
    session = Session(examined(name).open(1), [5, 9, 12, 7])
    passed(name, session, TokenTree.chain([20, 21]))
    session.commit([20, 30])  # a draft that stood, and the verifier's own
    agree(name, session)
    passed(name, session)


def test_after_rewind_fork_reuse_and_compaction() -> None:
    session = Session(examined("llama").open(1), [5, 9, 12, 7, 8, 11])
    passed("llama", session, TokenTree.chain([20, 21]))
    session.commit([20])
    session.rewind(4)
    agree("llama", session)
    session.commit([33])
    passed("llama", session, tree := TokenTree.chain([40, 41, 42]))
    fork = session.fork(at=1)
    assert fork.tokens[-2:] == [40, 41]
    agree("llama", fork)
    passed("llama", fork)
    session.adopt(fork)
    agree("llama", session)
    assert len(tree) == 3
    assert session.restart([5, 9, 12, 7, 33, 50, 51, 52]) == 5
    passed("llama", session)
    other = Session(session.arena, [6] * 30)
    forward(other, want=WANT)
    other.close()
    assert isinstance(session.arena, SlotArena)
    session.arena.compact(slack=0)
    agree("llama", session)
    session.commit([13])
    passed("llama", session)
    session.close()
    session.arena.check()
    assert not session.arena.nodes
    assert not session.arena.states


def test_what_was_computed_without_states_is_computed_again() -> None:
    """A prompt read by an earlier request that did not ask for them, or asked for others."""
    session = Session(examined("llama").open(1), [5, 9, 12, 7])
    forward(session)
    session.commit([20])
    passed("llama", session)
    session.restart([5, 9, 12, 30, 31, 32])
    few = Want(frozenset({1}), trunk=True)
    forward(session, want=few)
    agree("llama", session, few)
    passed("llama", session)
    rows = forward(session, want=WANT)
    assert rows.cost.positions == 1, "nothing is computed twice"


def test_long_prompts_keep_all_of_theirs(monkeypatch: Any) -> None:
    monkeypatch.setattr("decodery.model.turn.CHUNK", 7)
    words = [3 + i * 7 % 50 for i in range(40)]
    passed("llama", Session(examined("llama").open(1), words), TokenTree.chain([5, 6]))
    session = Session(examined("llama").open(1), words)
    plain = forward(session)
    rows = forward(session, TokenTree.chain([5, 6]), WANT)
    torch.testing.assert_close(rows.logits[:1], plain.logits, atol=1e-4, rtol=1e-4)
    agree("llama", session)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_program(data: Any) -> None:
    arena = examined("llama").open(data.draw(st.sampled_from([1, 3])))
    sessions = [Session(arena, data.draw(st.lists(TOKENS, min_size=1, max_size=6)))]
    for _ in range(data.draw(st.integers(2, 8))):
        session = data.draw(st.sampled_from(sessions))
        match data.draw(st.sampled_from(["step", "step", "plain", "rewind", "fork", "restart", "close", "compact"])):
            case "step":
                passed("llama", session, tree := data.draw(trees(4)))
                session.commit(verdict(data, tree))
            case "plain":  # a pass of somebody who needs no states
                forward(session, tree := data.draw(trees(4)))
                session.commit(verdict(data, tree))
            case "rewind":
                session.rewind(data.draw(st.integers(1, len(session.tokens))))
            case "fork" if len(sessions) < 4:
                sessions.append(session.fork())
            case "restart":
                kept = data.draw(st.integers(0, len(session.tokens)))
                session.restart([*session.tokens[:kept], *data.draw(st.lists(TOKENS, min_size=1, max_size=4))])
            case "close" if len(sessions) > 1:
                session.close()
                sessions.remove(session)
            case "compact" if isinstance(arena, SlotArena):
                arena.compact(slack=0)
    for session in sessions:
        passed("llama", session)
    for session in sessions:
        session.close()
    assert not arena.nodes
    assert not arena.states
