"""The paged cache: which graphs it takes, how it grows, and what interrupts and other threads do to it."""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Site, Want
from decodery.model.arena import Answer, Feed
from decodery.model.probe import settle
from decodery.model.session import Ask, Session
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.trial import check
from decodery.model.turn import forward, turn
from decodery.model.variant import through

from . import tiny
from .test_arena import agree
from .tiny import SIZES, VOCAB, network

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'openvino>=2026.4'")

import openvino

from decodery.model.facts import facts_of
from decodery.model.openvino import graphs
from decodery.model.openvino import paged as module
from decodery.model.openvino.folder import GRAPH
from decodery.model.openvino.graphs import LADDER, PagedGraph, paged_graph
from decodery.model.openvino.paged import PagedArena
from decodery.model.openvino.places import FINAL, WHOLE, Cut
from decodery.model.openvino.traced import traced

PLAIN_SIZES = {name: size for name, size in SIZES.items() if name != "head_dim"}
GPT_SIZES: Any = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}
OTHERS: dict[str, Any] = {
    "qwen2": lambda: hf.Qwen2Config(**PLAIN_SIZES),
    "mistral": lambda: hf.MistralConfig(**SIZES, sliding_window=None),
    "phi": lambda: hf.PhiConfig(**PLAIN_SIZES),
    "phi3 (sliding)": lambda: hf.Phi3Config(**PLAIN_SIZES, sliding_window=7),
    "gpt-neox of its own sizes": lambda: hf.GPTNeoXConfig(
        **{name: size for name, size in PLAIN_SIZES.items() if name != "num_key_value_heads"}
    ),
    "gptj": lambda: hf.GPTJConfig(**GPT_SIZES, rotary_dim=8),
    "bigcode": lambda: hf.GPTBigCodeConfig(**GPT_SIZES),
    "opt": lambda: hf.OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_attention_heads=4, num_hidden_layers=3, word_embed_proj_dim=32
    ),
    "granite (a scale of its own)": lambda: hf.GraniteConfig(**PLAIN_SIZES, attention_multiplier=0.2),
    "cohere": lambda: hf.CohereConfig(**PLAIN_SIZES),
    "heads of 20": lambda: hf.LlamaConfig(**{**SIZES, "head_dim": 20}),
    "gemma2": lambda: hf.Gemma2Config(**SIZES),
    "llama4": lambda: hf.Llama4TextConfig(**SIZES, attention_chunk_size=5, num_local_experts=1),
}
REFUSED = {"gemma2": "no attention that can be replaced", "llama4": "attention within chunks"}
"""Soft limits are no ScaledDotProductAttention."""


@pytest.fixture(scope="session")
def graph(tmp_path_factory: Any) -> Any:
    @cache
    def made(name: str) -> Path:
        path: Path = tmp_path_factory.mktemp("paged") / GRAPH
        openvino.save_model(traced(network(name)), path, compress_to_fp16=False)
        return path

    return made


def test_a_conversion_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's converter sends its maker usage data by default; ours must not, for conversion is the default here."""
    sent = []
    telemetry = pytest.importorskip("openvino_telemetry", reason="there is nothing that could send")
    for name in ("__init__", "send_event", "start_session", "end_session"):
        monkeypatch.setattr(telemetry.Telemetry, name, lambda *given, **_: sent.append(given))
    traced(network("llama"))
    assert not sent
    openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
    assert sent, "the test would not notice"


@pytest.mark.parametrize("name", OTHERS)
def test_right_or_refused(name: str, graph: Any, monkeypatch: Any) -> None:
    """Rows over pages are those of passes without a cache, or the reason why not is said."""
    monkeypatch.setitem(tiny.CONFIGS, name, OTHERS[name])
    opened, reason = paged_graph(graph(name), facts_of(network(name)))
    if opened is None:
        assert REFUSED[name] in reason
    else:
        assert name not in REFUSED
        assert check(network(name), lambda: PagedArena(opened), 40, 6) == ""


UNSEEN = {"opt": "its head runs the decoder within its body", "gpt-neo": "not traced", "gpt-neox": "not traced"}
"""Networks whose states after the last norm are not where they should be: nothing is offered then."""

SEEN = [name for name in (*tiny.CONFIGS, *OTHERS) if name not in {*REFUSED, *UNSEEN, "mamba"}]


@pytest.mark.parametrize("name", SEEN)
def test_hidden_states_and_layer_subsets_are_those_of_torch(name: str, graph: Any, monkeypatch: Any) -> None:
    """In trees behind a text, in passes of several texts, and where a pass resumes in the middle from given states."""
    for other, config in OTHERS.items():
        monkeypatch.setitem(tiny.CONFIGS, other, config)
    net = network(name)
    made = PagedGraph(graph(name), facts_of(net), 1)
    assert made.watched
    depth = made._facts.depth
    everywhere = Want(frozenset({*range(depth), Site.FINAL}), trunk=True)
    backend = TorchBackend(net)
    assert settle(backend) == ""
    ours, theirs = PagedArena(made), SlotArena(backend)

    def step(tokens: list[int], parents: list[int], **how: Any) -> Answer:
        handles = ours.reserve(len(tokens))
        assert theirs.reserve(len(tokens)) == handles
        feed = Feed(handles, tokens, parents, {handles[0], *handles[2:]}, **how)
        mine, true = ours.extend(feed), theirs.extend(feed)
        for field in ("logits", "hidden", "every"):
            torch.testing.assert_close(getattr(mine, field), getattr(true, field), atol=1e-4, rtol=1e-3)
        return mine

    first = step([5, 9, 12, 7, 30], [ROOT, 0, 1, 2, 3], want=everywhere)
    assert first.every.keys() == first.hidden.keys() == everywhere.hidden
    step([6, 7, 8, 9, 11], [4, 4, 5, 5, ROOT], want=everywhere)
    assert ours.states.keys() == theirs.states.keys() == set(range(10))
    step([6, 7, 8], [4, 10, 10], variant=through({0, depth - 1}), want=Want(frozenset({0})))
    step([6, 7, 8], [4, 13, 13], variant=through(()))
    states = torch.randn(3, first.every[0].shape[1], generator=torch.Generator().manual_seed(1))
    step([6, 7, 8], [4, 16, 16], variant=through(range(1, depth)), states=states)
    step([6, 7, 8], [4, 19, 19], states=states)
    step([6, 7, 8], [ROOT] * 3, variant=through(()), states=states)
    step([6, 7], [4, 25], want=everywhere)
    made.cut(Cut(frozenset({FINAL}))).prepare()
    step([6], [4], want=Want(frozenset({Site.FINAL})))
    ours.check()


def test_what_a_network_hides_is_not_offered(graph: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(tiny.CONFIGS, "opt", OTHERS["opt"])
    assert not PagedGraph(graph("opt"), facts_of(network("opt"))).watched


def test_threads_ask_for_one_cut_at_once(llama: PagedGraph, monkeypatch: Any) -> None:
    """It is compiled once."""
    made, compiled = [], PagedGraph._compiled
    monkeypatch.setattr(PagedGraph, "_compiled", lambda *given: made.append(given) or compiled(*given))
    cut = Cut(layers=frozenset({1}))
    with ThreadPoolExecutor(4) as pool:
        graphs_of_it = set(pool.map(lambda _: llama.cut(cut), range(8)))
    assert len(graphs_of_it) == len(made) == 1
    assert llama.cut(WHOLE) is llama


@pytest.fixture(scope="session")
def llama(graph: Any) -> PagedGraph:
    return PagedGraph(graph("llama"), facts_of(network("llama")))


def test_a_cache_grows(llama: PagedGraph, monkeypatch: Any) -> None:
    """What is cached is kept when the cache becomes larger, also in the middle of a text."""
    monkeypatch.setattr(module, "ROOM", 8)
    arena = PagedArena(llama)
    assert arena._store.cache.shape[1] == 2
    sessions = [Session(arena, [3 + (i * 7 + k) % 50 for i in range(20 + 9 * k)]) for k in range(4)]
    for _ in range(3):
        asks = [Ask(session, TokenTree.chain([5, 6, 7])) for session in sessions]
        for ask, rows in zip(asks, turn(asks), strict=True):
            agree("llama", rows, ask.session)  # type: ignore[arg-type]
            ask.session.commit([5, 6, 7, 8, 9, 10])
    assert arena._store.cache.shape[1] >= 9


class Stopped:
    """A request that is interrupted, before or after it has computed."""

    def __init__(self, request: Any, late: bool) -> None:
        self._request, self._late = request, late

    def infer(self, *args: Any, **kwargs: Any) -> None:
        if self._late:
            self._request.infer(*args, **kwargs)
        raise KeyboardInterrupt


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_leaves_the_cache_usable(llama: PagedGraph, late: bool) -> None:
    arena = PagedArena(llama)
    session = Session(arena, [5, 9, 12, 7])
    tree = TokenTree()
    tree.add(20)
    second = tree.add(21)
    third = tree.add(22, second)
    agree("llama", forward(session, tree), session)
    session.commit([21, 22, 30])  # nodes beside the first branch: the next pass moves them
    request = arena._store.requests[llama, 0]
    arena._store.requests[llama, 0] = Stopped(request, late)
    with pytest.raises(KeyboardInterrupt):
        forward(session, TokenTree.chain([8, 9]))
    arena._store.requests[llama, 0] = request
    arena.check()
    arena.pages.check()
    agree("llama", forward(session, TokenTree.chain([8, 9])), session)
    session.close()
    assert third
    assert arena.pages.live == 0


def test_an_interrupt_while_slots_are_copied(llama: PagedGraph) -> None:
    """Copying that was stopped half way is done again before the next pass."""
    arena = PagedArena(llama)
    session = Session(arena, [5, 9, 12, 7])
    tree = TokenTree()
    tree.add(20)
    tree.add(22, tree.add(21))
    forward(session, tree)
    session.commit([21, 22, 30])
    store = arena._store

    class Memory:
        shape = store.cache.shape

        def __getitem__(self, where: Any) -> Any:
            return store.cache[where]

        def __setitem__(self, where: Any, states: Any) -> None:
            store.cache[where] = states
            raise KeyboardInterrupt

    arena._store = store._replace(cache=Memory())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        forward(session, TokenTree.chain([8, 9]))
    arena._store = store
    agree("llama", forward(session, TokenTree.chain([8, 9])), session)


def test_sizes_are_compiled_after_a_while(graph: Any, caplog: Any, monkeypatch: Any) -> None:
    """One after another in the background, not more than allowed; until then, and where it fails, any size is served."""
    monkeypatch.setattr(graphs, "PATIENCE", 4)

    def passes(made: PagedGraph, count: int) -> Session:
        session = Session(PagedArena(made), [5, 9, 12, 7])
        for i in range(count):
            agree("llama", forward(session, TokenTree.chain([6, 7])), session)
            session.commit([10 + i])
        return session

    made = PagedGraph(graph("llama"), facts_of(network("llama")), 2)
    session = passes(made, 4)
    assert made._thread is None
    assert [key for _, key in session.arena._store.requests] == [0]  # type: ignore[attr-defined]
    for size in LADDER[:2]:
        for _ in range(5):
            agree("llama", forward(session, TokenTree.chain([6, 7])), session)
        assert made._thread is not None
        made._thread.join()
        assert size in made._ready
    agree("llama", forward(session, TokenTree.chain([6, 7])), session)
    assert [key for _, key in session.arena._store.requests] == [0, 4]  # type: ignore[attr-defined]
    made.prepare()
    assert [made.key(made.size_for(n)) for n in (1, 2, 4, 5, 8, 9)] == [1, 4, 4, 0, 0, 0]

    failing = PagedGraph(graph("llama"), facts_of(network("llama")), 2)
    monkeypatch.setattr(failing, "_compiled", lambda _: 1 / 0)
    passes(failing, 12)
    failing.prepare()
    assert failing.key(failing.size_for(3)) == 0
    assert "cannot be compiled" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_arenas_of_several_threads_share_a_graph(graph: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(graphs, "PATIENCE", 9)
    made = PagedGraph(graph("llama"), facts_of(network("llama")), 2)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            session = Session(PagedArena(made), [3 + seed, 9, 12])
            for i in range(12):
                agree("llama", forward(session, TokenTree.chain([6 + seed, 7, 8][: i % 4])), session)
                session.commit([10 + (i * 3 + seed) % 40])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.prepare()
    assert not failures


def test_a_cache_goes_with_its_arena(llama: PagedGraph, monkeypatch: Any) -> None:
    """Memory is given back without the help of the garbage collector."""
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(module, "ROOM", 1 << 17)
    monkeypatch.setattr(llama, "context", 1 << 17)
    gc.disable()
    try:
        taken = []
        for _ in range(4):
            arena = PagedArena(llama)
            arena._store.cache[:] = 1
            forward(Session(arena, [5, 9, 12, 7]))
            taken.append(psutil.Process().memory_info().rss)
            size = arena._store.cache.nbytes
            del arena
        assert max(taken) - taken[0] < size
    finally:
        gc.enable()


def test_an_older_openvino_is_named(graph: Any, monkeypatch: Any) -> None:
    monkeypatch.delattr(sys.modules["openvino.op"], "_PagedAttentionExtension")
    opened, reason = paged_graph(graph("llama"), facts_of(network("llama")))
    assert opened is None
    assert "openvino 2026.4 or newer" in reason


def test_a_graph_without_attention_is_refused(tmp_path: Path) -> None:
    from openvino import opset13 as ops

    value = ops.parameter([1, 2], openvino.Type.f32, name="input_ids")
    openvino.save_model(openvino.Model([ops.relu(value)], [value], "none"), tmp_path / GRAPH)
    opened, reason = paged_graph(tmp_path / GRAPH, facts_of(network("llama")))
    assert opened is None
    assert "no attention" in reason
