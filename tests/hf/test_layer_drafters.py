"""Drafting with parts of the target on tiny networks: layer sets against their definition, and each method's promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import decodery
from decodery.core.chooser import Seeded
from decodery.core.roles import Laws
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Cap, Tensor, Want
from decodery.draft.dynamic_exit import DynamicExit
from decodery.draft.easyspec import EasySpec, grouped
from decodery.draft.layer_skip import LayerSkip, spread
from decodery.draft.swift import Swift, without
from decodery.model.arena import Feed
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.model.slots import SlotArena
from decodery.model.torch.backend import TorchBackend
from decodery.model.turn import forward
from decodery.model.variant import PLAIN, Half, Shared, Variant, through
from decodery.model.view import View

from ..running import answered, proposed
from .test_decode import OPTIONS, PROMPTS, tokenizer
from .tiny import CONFIGS, KINDS, TREES, VOCAB, network

DEPTH = 6
DEEP = {"llama": {}, "gemma3 (sliding and full)": {"layer_types": KINDS * 2}, "gpt2": {}, "gpt-neox": {}}
OUTPUTS = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")
"""How transformers calls the last matrix of an attention or an MLP: where it is zero, the half adds nothing."""
WORDS = [5, 9, 12, 7, 20, 21, 8]


@cache
def deep(name: str = "llama") -> PreTrainedModel:
    """Six layers, random."""
    config = CONFIGS[name]()
    for key, value in {"num_hidden_layers": DEPTH, **DEEP[name]}.items():
        setattr(config, key, value)
    torch.manual_seed(1)
    net: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return net


def model(net: PreTrainedModel) -> Model:
    return Model(net, tokenizer(), "tiny")


@torch.no_grad()
def muted(net: PreTrainedModel, halves: Sequence[tuple[int, bool]]) -> PreTrainedModel:
    """A copy in which these attentions (True) and MLPs (False) add nothing, by their weights."""
    twin = copy.deepcopy(net)
    layers = TorchBackend(twin).surgery.need_layers()
    for layer, attends in halves:
        for name, half in layers[layer].named_children():
            if hasattr(half, "layer_idx") == attends and "norm" not in name and not name.startswith("ln"):
                for path, module in half.named_modules():
                    if path.split(".")[-1] in OUTPUTS:
                        for parameter in module.parameters():
                            parameter.zero_()
    return twin


@torch.inference_mode()
def rows(net: PreTrainedModel, words: Sequence[int] = WORDS) -> Tensor:
    answer: Tensor = net(input_ids=torch.tensor([list(words)]), use_cache=False).logits[0]
    return answer


def passed(net: PreTrainedModel, layers: Any) -> Tensor:
    """The rows of ``WORDS`` through a layer set, with a cache, in two passes."""
    session = Session(SlotArena(TorchBackend(net)), WORDS[:3], prompt=0, variant=as_variant(layers))
    first = forward(session)
    session.commit(WORDS[3:4])
    rest = forward(session, TokenTree.chain(WORDS[4:]))
    return torch.cat([first.logits, rest.logits])


def as_variant(layers: Any) -> Variant:
    """None: all layers."""
    return layers if isinstance(layers, Variant) else PLAIN if layers is None else through(layers)


def greedy(net: PreTrainedModel, prompt: Sequence[int], n: int = OPTIONS["max_new_tokens"]) -> list[int]:
    words = list(prompt)
    for _ in range(n):
        words.append(int(rows(net, words)[-1].argmax()))
    return words[len(prompt) :]


def close(have: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(have, want, atol=3e-4 * float(want.std()) + 1e-4, rtol=1e-3)


# ---- layer sets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("attends", [True, False])
def test_a_half_left_out_is_a_half_that_adds_nothing(name: str, attends: bool) -> None:
    net = network(name)
    have = passed(net, [0, Half(1, not attends), 2])
    close(have, rows(muted(net, [(1, attends)]))[2:])
    assert not torch.allclose(have, rows(net)[2:], atol=1e-2)
    assert not any("forward" in vars(module) for module in net.modules()), "something was left behind"


@torch.inference_mode()
def test_attentions_that_share_an_input_are_the_definition() -> None:
    """Every attention of a group reads what the group received; additions and MLPs stay in order."""
    net: Any = deep()
    for groups in ([(0,), (1, 2), (3, 4), (5,)], [(0,), (1, 2, 3), (4,), (5,)], [(0,), (1, 2, 3, 4), (5,)]):
        x = net.model.embed_tokens(torch.tensor([WORDS]))
        place = net.model.rotary_emb(x, position_ids=torch.arange(len(WORDS))[None])
        mask = torch.full((len(WORDS), len(WORDS)), torch.finfo(x.dtype).min).triu(1)[None, None]
        for group in groups:
            start = x
            for layer in (net.model.layers[i] for i in group):
                states = layer.input_layernorm(start)
                x = x + layer.self_attn(hidden_states=states, position_embeddings=place, attention_mask=mask)[0]
                x = x + layer.mlp(layer.post_attention_layernorm(x))
        expected = net.lm_head(net.model.norm(x))[0]
        kept = [Shared(g) if g[1:] else g[0] for g in groups]
        session = Session(SlotArena(TorchBackend(net)), WORDS[:1], prompt=0, variant=through(kept))
        close(forward(session, TokenTree.chain(WORDS[1:])).logits, expected)
        assert not torch.allclose(expected, rows(net), atol=1e-2)


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("exit", range(1, DEPTH))
def test_a_pass_can_stop_anywhere_and_resume(name: str, exit: int) -> None:
    """Layers up to an exit, then the rest from the states there, with a cache: the rows of one pass. What ``logits`` makes
    of the states is what a pass through these layers alone gives."""
    net = deep(name)
    low, high = SlotArena(TorchBackend(net)), SlotArena(TorchBackend(net))
    parent, outs = ROOT, []
    for words in (WORDS[:3], WORDS[3:]):
        handles = low.reserve(len(words))
        high.reserve(len(words))
        parents = [parent, *handles[:-1]]
        want = Want(frozenset({exit - 1}))
        stopped = low.extend(Feed(handles, words, parents, handles, want, through(range(exit))))
        states = stopped.hidden[exit - 1]
        close(model(net).logits(states), stopped.logits)
        rest = Feed(handles, words, parents, handles, variant=through(range(exit, DEPTH)), states=states)
        outs.append(high.extend(rest).logits)
        parent = handles[-1]
    torch.testing.assert_close(torch.cat(outs), rows(net), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DEEP)
def test_a_set_of_all_layers_is_the_model(name: str) -> None:
    """Layer-skip at a speedup of 1, SWIFT with nothing left out, EasySpec in groups of 1."""
    whole = passed(deep(name), None)
    for layers in (spread(DEPTH, 1), without(DEPTH, ()), grouped(DEPTH, 1)):
        torch.testing.assert_close(passed(deep(name), layers), whole, atol=1e-5, rtol=0)
    assert (passed(deep(name), grouped(DEPTH, 2)) - whole).abs().max() > 1e-2


def test_logits_of_the_last_layer_are_the_rows() -> None:
    for name in DEEP:
        whole = forward(model(deep(name)).session(WORDS), want=Want(frozenset({DEPTH - 1})))
        close(model(deep(name)).logits(whole.hidden[DEPTH - 1]), whole.logits)


# ---- greedy decoding is the same ---------------------------------------------------------------------------------------

SPECS: dict[str, Callable[[], Any]] = {
    "layer-skip": lambda: LayerSkip(speedup=2),
    "layer-skip wide": lambda: LayerSkip(speedup=3, width=3),
    "del": lambda: DynamicExit(every=1),
    **{f"del after {exit}": lambda exit=exit: DynamicExit(exits=(exit,), pause=1) for exit in range(1, DEPTH)},
    "swift": lambda: Swift(skip=0.3, window=4, interval=1, bayes=3, confidence=0.1),
    "swift tree": lambda: Swift(skip=0.3, window=4, interval=2, tree=True),
    "swift frozen": lambda: Swift(interval=0, units=(0, 3)),
    "swift, all skipped": lambda: Swift(skip=1.0, confidence=0.1),
    "easyspec": lambda: EasySpec(group=2),
    "easyspec wide": lambda: EasySpec(group=4, width=3),
    "easyspec, other model": lambda: EasySpec(path=model(deep()), group=2),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("spec", SPECS)
def test_greedy_is_the_definition(name: str, spec: str) -> None:
    """One by one, with the search going on from prompt to prompt, and in a batch."""
    net, draft = model(deep(name)), SPECS[spec]()
    expected = [greedy(deep(name), prompt) for prompt in PROMPTS]
    for _ in range(2):
        outputs = [decodery.decode(net, prompt, draft=draft, **OPTIONS) for prompt in PROMPTS]
        assert [output.tokens for output in outputs] == expected
    assert sum(output.stats.drafted for output in outputs) > 0 or "del" in spec
    assert [o.tokens for o in decodery.decode(net, PROMPTS, draft=SPECS[spec](), **OPTIONS)] == expected


@cache
@torch.no_grad()
def leaning() -> PreTrainedModel:
    """Its last four layers add little, so that drafts without some of them are right at times and wrong at times."""
    twin: Any = copy.deepcopy(deep())
    for layer in twin.model.layers[2:]:
        for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
            matrix.weight.mul_(0.1)
    leaned: PreTrainedModel = twin
    return leaned


@cache
def twenty() -> list[tuple[list[int], list[int]]]:
    """Prompts, and the leaning network's greedy answers by their definition."""
    words = torch.randint(3, VOCAB, (20, 12), generator=torch.Generator().manual_seed(0)).tolist()
    prompts = [line[: 3 + i % 8] for i, line in enumerate(words)]
    return [(prompt, greedy(leaning(), prompt, 8)) for prompt in prompts]


SWIFTS: dict[str, Any] = {"window": 4, "bayes": 3, "confidence": 0.1, "length": 4, "units": (0, 1, 6)}
TWENTY: dict[str, Callable[[], Any]] = {
    "del": lambda: DynamicExit(every=1, pause=1),
    **{f"del after {exit}": lambda exit=exit: DynamicExit(exits=(exit,), pause=1) for exit in range(1, DEPTH)},
    "swift searching": lambda: Swift(**SWIFTS, interval=1, enough=1.0),
    "swift frozen": lambda: Swift(**SWIFTS, interval=0),
}


def _search_of(draft: Any) -> Any:
    """What SWIFT learnt; it had one model only."""
    (search,) = draft.lores.values()
    return search


@pytest.mark.parametrize("spec", TWENTY)
def test_twenty_answers_stay_as_they_are(spec: str) -> None:
    """Drafts are accepted and refused on the way, and SWIFT leaves out another set at the end only where it searches."""
    net, draft, drafted, accepted = model(leaning()), TWENTY[spec](), 0, 0
    for prompt, expected in twenty():
        output = decodery.decode(net, prompt, draft=draft, max_new_tokens=8, ignore_eos=True)
        assert output.tokens == expected
        drafted, accepted = drafted + output.stats.drafted, accepted + output.stats.accepted
    assert 0 < accepted < drafted
    if isinstance(draft, Swift):
        assert (_search_of(draft).best != frozenset(SWIFTS["units"])) == (spec == "swift searching")


@pytest.mark.parametrize("spec", ["layer-skip", "swift", "easyspec"])
def test_the_cache_does_not_grow(spec: str) -> None:
    session = model(deep()).session()
    for _ in range(3):
        decodery.decode(model(deep()), PROMPTS[0], session=session, draft=SPECS[spec](), **OPTIONS)
    session.restart(PROMPTS[0])
    assert isinstance(session.arena, SlotArena)
    assert len(session.arena.nodes) == session.cached
    assert max(session.arena._used) < 100


# ---- layer-skip --------------------------------------------------------------------------------------------------------


def test_a_draft_runs_its_layers_and_the_prompt_all() -> None:
    net: Any = deep()
    calls: list[int] = []
    hooks = [
        layer.mlp.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, layer in enumerate(net.model.layers)
    ]
    try:
        draft = LayerSkip(speedup=2, length=2).bind(model(net))
        session = model(net).session(WORDS)
        draft.begin(session, Laws())
        calls.clear()
        assert len(proposed(draft, session, budget(), Seeded(0))) == 0
        assert calls == []
        forward(session)
        assert calls == list(range(DEPTH))
        session.commit([11])
        calls.clear()
        draft._session.follow(session)
        assert len(proposed(draft, session, budget(), Seeded(0))) == 2
        assert calls == [0, 3, 5] * 2
    finally:
        for hook in hooks:
            hook.remove()


def budget() -> Any:
    from decodery.core.values import Budget

    return Budget(99, 99)


@pytest.mark.parametrize("draft", [LayerSkip(speedup=1), EasySpec(group=1), Swift(skip=0.0, confidence=0.0, length=3)])
@pytest.mark.parametrize("guide", [[], ["temperature:1.0"]])
def test_a_draft_through_all_layers_is_accepted_whole(draft: Any, guide: list[str]) -> None:
    """And so its law is the target's: what is drawn is never refused."""
    draft = copy.deepcopy(draft)
    output = decodery.decode(model(deep()), WORDS, draft=draft, guide=guide, seed=1, max_new_tokens=21, ignore_eos=True)
    assert output.stats.accepted == output.stats.drafted == 15
    assert output.stats.forwards == 6, "one for the prompt, five of four tokens"


# ---- del ---------------------------------------------------------------------------------------------------------------


def test_del_finds_the_exit_behind_which_nothing_happens() -> None:
    """Layers 2 to 5 add nothing, so the first exit that is always right is that after 2; then drafts are long and stand."""
    net = muted(deep(), [(i, attends) for i in range(2, DEPTH) for attends in (True, False)])
    draft = DynamicExit(every=1, max=4)
    output = decodery.decode(model(net), WORDS, draft=draft, max_new_tokens=40, ignore_eos=True)
    assert output.tokens == greedy(net, WORDS, 40)
    assert output.stats.acceptance == 1.0
    assert output.stats.tokens_per_forward > 4


def test_del_leaves_plain_decoding_where_no_exit_is_right() -> None:
    """The random network: hardly a draft."""
    output = decodery.decode(model(deep()), WORDS, draft="del", max_new_tokens=40, ignore_eos=True)
    assert output.stats.drafted <= 4


# ---- swift -------------------------------------------------------------------------------------------------------------


def test_scoring_leaves_no_trace() -> None:
    """The keys and values of what is committed, the nodes and the set are the same before and after a candidate."""
    net = model(deep())
    draft = Swift(skip=0.5, window=4).bind(net)
    session = net.session(WORDS)
    draft.begin(session, Laws())
    forward(session)
    session.commit([11, 12, 13, 14, 15, 16])
    forward(session)
    draft._session.follow(session)
    arena = session.arena
    assert isinstance(arena, SlotArena)

    def state() -> Any:
        slots = [arena._slot[handle] for handle in session.arena.lineage(session.head)]
        kept = [states[0, :, slots].clone() for layer in arena._store.slot_layers for states in layer.states]
        return kept, dict(arena.nodes), list(session.arena.lineage(session.head)), draft.lore.best

    before, nodes, trunk, best = state()
    first = answered(draft._matchness(session, frozenset({0, 3, 5, 6})))
    after, *rest = state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert rest == [nodes, trunk, best]
    assert answered(draft._matchness(session, frozenset({0, 3, 5, 6}))) == first


def test_matchness_is_the_definition() -> None:
    net, skipped = model(deep()), {0, 3, 5, 6}
    answer = greedy(deep(), WORDS, 9)
    draft = Swift(skip=0.5, window=8).bind(net)
    session = net.session(WORDS)
    draft.begin(session, Laws())
    forward(session)
    session.commit(answer)
    forward(session)
    draft._session.follow(session)
    assert answered(draft._matchness(session, frozenset())) == 1.0
    view = net.session(WORDS)
    forward(view)
    probe = View(view, without(DEPTH, skipped))
    probe.commit([answer[0]])
    guesses = forward(probe, TokenTree.chain(answer[1:-1])).logits.argmax(-1).tolist()
    expected = sum(a == b for a, b in zip(guesses, answer[1:], strict=True)) / 8
    assert answered(draft._matchness(session, frozenset(skipped))) == expected


def test_the_search_finds_what_does_nothing() -> None:
    """Four of eight units add nothing; the search finds a set as good as these, its score never falls, and it outlives
    requests."""
    idle = {0, 1, 5, 6}
    net = model(muted(deep(), [(unit // 2 + 1, unit % 2 == 0) for unit in idle]))
    draft = Swift(skip=0.5, window=16, interval=1, bayes=5)
    scores = []
    for prompt in PROMPTS:
        decodery.decode(net, prompt, draft=draft, max_new_tokens=64, ignore_eos=True, seed=1)
        search = _search_of(draft)
        scores.append(search.score)
    assert scores == sorted(scores)
    assert search.score == max(search.scores)
    assert search.score > search.scores[0]
    assert search.score == 1.0
    tried = len(search.tried)
    decodery.decode(net, PROMPTS[0], draft=draft, max_new_tokens=30, ignore_eos=True)
    assert len(search.tried) == tried, "a score above enough ends the search"


# ---- easyspec ----------------------------------------------------------------------------------------------------------


def test_stages_of_a_draft() -> None:
    for depth in range(3, 40):
        for group in range(1, 7):
            stages = grouped(depth, group)
            assert len(stages) == 2 + -(-(depth - 2) // group)
            flat = [i for stage in stages for i in (stage.layers if isinstance(stage, Shared) else [stage])]
            assert sorted(flat) == list(range(depth))


def test_easyspec_calibrates() -> None:
    """After each round the draft model's keys and values of the committed text are those of a fresh exact pass."""
    net = model(deep())
    draft = EasySpec(path=net, group=4).bind(net)
    session = net.session(WORDS)
    draft.begin(session, Laws())
    answer = greedy(deep(), WORDS, 6)
    for token in answer:
        assert len(proposed(draft, session, budget(), Seeded(0))) == 3
        exact = draft._exact
        fresh = net.session(session.tokens)
        forward(fresh)
        assert isinstance(exact.arena, SlotArena)
        assert isinstance(fresh.arena, SlotArena)
        for mine, theirs in zip(exact.arena._store.slot_layers, fresh.arena._store.slot_layers, strict=True):
            for a, b in zip(mine.states, theirs.states, strict=True):
                ours = a[0, :, [exact.arena._slot[handle] for handle in exact.arena.lineage(exact.head)]]
                torch.testing.assert_close(ours, b[0, :, : len(session.tokens)], atol=1e-5, rtol=1e-4)
        session.commit([token])
        draft.observe(session, None, Seeded(0))  # type: ignore[arg-type]


def test_probe_finds_halves() -> None:
    for name in TREES:
        assert Cap.HALVES in model(network(name)).can
