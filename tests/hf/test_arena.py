"""Whatever a session is made to do, its rows equal those of passes without a cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodery.core.errors import DecoderyError
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Cap, Rows, Site
from decodery.model.arena import Arena
from decodery.model.facts import facts_of
from decodery.model.probe import examine
from decodery.model.session import Ask, Session
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.turn import forward, turn
from decodery.model.variant import through
from decodery.model.view import View

from ..running import counted
from .tiny import CONFIGS, TREES, VOCAB, network, truth

TOKENS = st.integers(3, VOCAB - 1)


def agree(name: str, rows: Rows, session: Session) -> int:
    """Compare every row with the definition; returns how many there were."""
    for i, row in enumerate(rows.logits):
        expected = truth(name, [*session.tokens, *rows.paths[i]])
        torch.testing.assert_close(row, expected, atol=3e-4 * float(expected.std()) + 1e-4, rtol=1e-3)
    return len(rows)


@st.composite
def trees(draw: Any, most: int = 6) -> TokenTree:
    """Any tree: chains, stars, repeated siblings (ghosts), empty."""
    tree = TokenTree()
    for i in range(draw(st.integers(0, most))):
        tree.add(draw(TOKENS), draw(st.integers(ROOT, i - 1)))
    return tree


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lanes", [1, 3])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_programs(name: str, lanes: int, data: Any) -> None:
    """Any program of forward, commit, rewind, fork and close, over several sessions of one arena."""
    run_program(name, examined(name).open(lanes), data)


def run_program(name: str, arena: Arena, data: Any, longest: int = 9, grows: bool = False) -> None:
    """Draw a program, run it, compare every row; in the end nothing is left in the arena.

    ``grows``: trees may be added to, pass after pass.
    """
    sessions = [Session(arena, data.draw(st.lists(TOKENS, min_size=1, max_size=longest)))]
    checked = 0
    for _ in range(data.draw(st.integers(3, 9))):
        session = data.draw(st.sampled_from(sessions))
        match data.draw(
            st.sampled_from(
                ["step", "step", "step", "together", "rewind", "fork", "new", "close", "grow" if grows else "compact"]
            )
        ):
            case "step":
                tree = data.draw(trees())
                checked += agree(name, forward(session, tree), session)
                session.commit(verdict(data, tree))
            case "together":
                asks = [Ask(s, data.draw(trees(3))) for s in sessions]
                for ask, rows in zip(asks, turn(asks), strict=True):
                    assert isinstance(rows, Rows)
                    checked += agree(name, rows, ask.session)
                for ask in asks:
                    ask.session.commit(verdict(data, ask.tree))
            case "grow":
                tree = data.draw(trees(3))
                checked += agree(name, forward(session, tree), session)
                for _ in range(3):
                    before = len(tree)
                    for _ in range(data.draw(st.integers(1, 3))):
                        live = [ROOT, *tree.live()]
                        tree.add(data.draw(TOKENS), data.draw(st.sampled_from(live)))
                    if fresh := [node for node in tree.live() if node >= before]:
                        checked += agree(name, forward(session, tree, fresh=fresh), session)
                session.commit(verdict(data, tree))
            case "rewind":
                session.rewind(data.draw(st.integers(1, len(session.tokens))))
            case "fork" if len(sessions) < 4:
                sessions.append(session.fork())
            case "new" if len(sessions) < 4:
                sessions.append(Session(arena, data.draw(st.lists(TOKENS, min_size=1, max_size=longest))))
            case "close" if len(sessions) > 1:
                session.close()
                sessions.remove(session)
            case "compact" if isinstance(arena, SlotArena):
                arena.compact(slack=0)
    checked += agree(name, forward(sessions[0]), sessions[0])
    assert checked
    for session in sessions:
        session.close()
    assert not arena.nodes, "nodes outlived their owners"


def verdict(data: Any, tree: TokenTree) -> list[int]:
    """A random path of live nodes, then perhaps other tokens."""
    path, node = [], ROOT
    while live := [i for i in tree.children(node) if not tree.ghost[i]]:
        if data.draw(st.booleans()):
            break
        path.append(node := data.draw(st.sampled_from(live)))
    return [tree.tokens[i] for i in path] + data.draw(st.lists(TOKENS, min_size=0 if path else 1, max_size=2))


_examined: dict[str, Any] = {}


def examined(name: str) -> Any:
    if name not in _examined:
        _examined[name] = examine(network(name))
    return _examined[name]


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: Any) -> Any:
    """Tiny networks as OpenVINO graphs."""
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'openvino>=2026.4'")
    from decodery.model.openvino.convert import convert
    from decodery.model.openvino.folder import GRAPH

    @cache
    def graph(name: str) -> Path:
        folder: Path = tmp_path_factory.mktemp("graphs")
        convert(network(name), folder)
        return folder / GRAPH

    return graph


@pytest.fixture(scope="session")
def stateful(graphs: Any) -> Any:
    """The same with the cache in the graph's own state."""
    from decodery.model.openvino.backend import OpenVinoBackend

    return cache(lambda name: OpenVinoBackend(graphs(name), facts_of(network(name))))


@pytest.fixture(scope="session")
def paged_graphs(graphs: Any) -> Any:
    """The same with paged attention; with ``fixed``, all sizes of passes have their graph."""
    from decodery.model.openvino.graphs import LADDER, PagedGraph

    @cache
    def graph(name: str, fixed: bool) -> PagedGraph:
        made = PagedGraph(graphs(name), facts_of(network(name)), len(LADDER) if fixed else 0)
        made.prepare()
        assert [made.key(made.size_for(size)) for size in LADDER] == (list(LADDER) if fixed else [0] * len(LADDER))
        return made

    return graph


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gemma3 (sliding and full)"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_programs_on_openvino(name: str, stateful: Any, data: Any) -> None:
    """The same programs over a cache that can only be appended to."""
    run_program(name, SlotArena(stateful(name)), data)


PAGED = ["llama", "qwen3", "gpt2", "gemma", "gemma3 (sliding and full)", "mistral (sliding)"]


@pytest.mark.parametrize("fixed", [False, True], ids=["any size", "fixed sizes"])
@pytest.mark.parametrize("name", PAGED)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_programs_on_pages(name: str, fixed: bool, paged_graphs: Any, data: Any) -> None:
    """The same programs over a paged cache; in the end no block is left."""
    from decodery.model.openvino.paged import PagedArena

    arena = PagedArena(paged_graphs(name, fixed))
    run_program(name, arena, data, longest=40, grows=True)  # beyond one block
    arena.pages.check()
    assert arena.pages.live == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_probe(name: str) -> None:
    """Masks reach all attention models, sliding windows included; a recurrent model says that it has none."""
    ability = examined(name)
    assert (Cap.TREE in ability.can) == (name in TREES)
    assert set(ability.missing) == set(Cap) - ability.can
    if name in TREES:
        assert ability.can == frozenset(Cap)
    else:
        assert "logits differ" in ability.missing[Cap.TREE] or "Error" in ability.missing[Cap.TREE]


@pytest.mark.parametrize("name", TREES)
def test_long_prompts_go_in_stretches(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("decodery.model.turn.CHUNK", 7)
    session = Session(examined(name).open(1), [3 + i * 7 % 50 for i in range(40)])
    counts = counted(session.arena)
    rows = forward(session, TokenTree.chain([5, 6]))
    agree(name, rows, session)
    assert counts.forwards == rows.cost.passes == 6
    assert counts.positions == rows.cost.positions == 42


@pytest.mark.parametrize("name", TREES)
def test_view_sees_the_trunk_and_leaves_no_trace(name: str) -> None:
    """A layer subset over the trunk's cache: all layers give the model's rows, fewer give others, the trunk stays exact."""
    session = Session(examined(name).open(1), [5, 9, 12, 7])
    forward(session)
    session.commit([11])
    everything, part = View(session, through(range(3))), View(session, through((0, 2)))
    for view, same in ((everything, True), (part, False)):
        tree = TokenTree()
        first = tree.add(20)
        tree.add(21)
        rows = forward(view, tree)
        last = tree.add(22, first)
        deeper = forward(view, tree, fresh=[last])
        if same:
            agree(name, rows, session)
            agree(name, deeper, session)
            assert deeper.paths == [(20, 22)]
        else:
            assert not torch.allclose(rows.logits[0], truth(name, session.tokens), atol=1e-2)
        view.follow(session)
        agree(name, forward(session, tree), session)
    for view in (everything, part):
        view.close()
    session.close()
    assert not session.arena.nodes


@pytest.mark.parametrize("name", TREES)
def test_hidden_states(name: str) -> None:
    """The states asked for are those of the model, at the rows asked for."""
    from decodery.core.values import Want

    session = Session(examined(name).open(1), [5, 9, 12, 7])
    rows = forward(session, TokenTree.chain([20, 21]), Want(frozenset({0, 1, Site.FINAL})))
    with torch.inference_mode():
        whole = network(name)(input_ids=torch.tensor([[5, 9, 12, 7, 20, 21]]), output_hidden_states=True)
    for layer, expected in (
        (0, whole.hidden_states[1]),
        (1, whole.hidden_states[2]),
        (Site.FINAL, whole.hidden_states[-1]),
    ):
        torch.testing.assert_close(rows.hidden[layer], expected[0, 3:], atol=1e-3, rtol=1e-3)


def test_embeddings_instead_of_tokens() -> None:
    from decodery.model.arena import Feed

    net = network("llama")
    arena = SlotArena(TorchBackend(net))
    handles = arena.reserve(3)
    embeds = net.get_input_embeddings()(torch.tensor([5, 9, 12]))
    answer = arena.extend(Feed(handles, [0, 0, 0], [ROOT, 0, 1], handles, embeds=embeds))
    torch.testing.assert_close(answer.logits[-1], truth("llama", [5, 9, 12]), atol=1e-4, rtol=1e-3)


def test_freed_slots_are_used_again() -> None:
    """Refused drafts cost no memory: the cache holds what the text and one tree need."""
    session = Session(SlotArena(TorchBackend(network("llama"))), [5])
    for i in range(60):
        forward(session, TokenTree.chain([7, 8, 9, 10]))
        session.commit([11 + i % 20])
    assert isinstance(session.arena, SlotArena)
    assert max(session.arena._used) <= 61 + 4
    assert len(session.arena.nodes) == session.cached


def test_context_is_a_limit() -> None:
    session = Session(examined("llama").open(1), [5] * 96)
    forward(session)
    with pytest.raises(DecoderyError, match="context of 96"):
        forward(session, TokenTree.chain([6]))


def test_compaction_gathers_what_lives() -> None:
    arena = SlotArena(TorchBackend(network("llama")))
    first, second = Session(arena, [5] * 40), Session(arena, [6, 7, 8])
    turn([Ask(first, TokenTree()), Ask(second, TokenTree())])
    first.close()
    before = max(arena._used)
    arena.compact(slack=0)
    assert max(arena._used) == 3 < before
    agree("llama", forward(second, TokenTree.chain([9])), second)


def test_a_session_picks_up_a_longer_conversation() -> None:
    session = Session(examined("llama").open(1), [5, 6, 7, 8])
    forward(session)
    session.commit([9, 10])
    forward(session)
    assert session.restart([5, 6, 7, 8, 9, 30, 31]) == 5
    agree("llama", forward(session), session)
