"""Drafters against their definitions: what they find, in which order, and what they forget."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.chooser import Seeded
from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.part import ready
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Cap, Tensor
from decodery.draft.aded import Aded, Edge
from decodery.draft.copyspec import CopySpec
from decodery.draft.jacobi import Jacobi
from decodery.draft.lib.automaton import Automaton
from decodery.draft.lib.earlier_texts import Past
from decodery.draft.lib.store import Store
from decodery.draft.lib.suffix_matching import Match, chances
from decodery.draft.mix import Mix
from decodery.draft.ngram import NGram
from decodery.draft.recycling import Recycling
from decodery.draft.suffix import Suffix
from decodery.model.session import Session
from decodery.model.toy import ToyModel, table
from decodery.model.turn import forward
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.run.spec import part
from decodery.verify.residual import Residual

from ..laws.exact import Count, produced, recipe, variation, wanted
from ..running import observed, proposed, speculate, together

ROOMY = Budget(64, 64)
TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def proposal(draft: Drafter, tokens: Sequence[int], budget: Budget = ROOMY) -> TokenTree:
    """What a drafter proposes after a text that it reads all at once."""
    return asked(ready(draft, ToyModel(vocab=8)), tokens, budget)


def asked(draft: Drafter, tokens: Sequence[int], budget: Budget = ROOMY) -> TokenTree:
    """The same of a drafter that is bound already, as a new request."""
    session = ToyModel(vocab=8).session(tokens)
    draft.begin(session, Laws())
    return proposed(draft, session, budget, Seeded(0))


def paths(tree: TokenTree) -> set[tuple[int, ...]]:
    return {tree.words(node) for node in range(len(tree))}


def cycle(n: int, vocab: int) -> Any:
    """A model that repeats 0, 1, ..., n - 1."""

    def logits(words: tuple[int, ...]) -> Tensor:
        return torch.eye(vocab, dtype=torch.float64)[(words[-1] + 1) % n if words else 0] * 9

    return logits


def steps(draft: Drafter, lm: Any, prompt: Sequence[int], length: int, vocab: int) -> list[Step]:
    """A greedy decoding of ``length`` tokens by a model given as a function."""
    toy = ToyModel(vocab=vocab)
    toy.lm = lm
    arena = toy.arena()
    arena.context = 4096
    built = build(recipe(draft, Residual()), toy)
    session, stop = Session(arena, prompt), Stop(max_new_tokens=length)
    program = speculate(session, built.draft, built.verify, built.laws, built.constrain, Seeded(0), stop, built.want)
    return [step for _, step in together([program])]


# ---- copyspec ----------------------------------------------------------------------------------------------------------


@given(TEXTS, st.integers(1, 4), st.sampled_from(["first", "latest"]), st.integers(1, 12))
def test_copyspec_finds_what_a_search_finds(tokens: list[int], gamma: int, pick: str, copy: int) -> None:
    """The first or latest earlier place of the last gamma tokens; the suffix never finds itself."""
    ends = [e for e in range(gamma, len(tokens)) if tokens[e - gamma : e] == tokens[-gamma:]]
    wanted = tokens[(end := ends[0 if pick == "first" else -1]) : end + copy] if ends else []
    assert proposal(CopySpec(gamma, copy, pick), tokens).tokens == wanted


@given(TEXTS, st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=6), st.integers(1, 3))
def test_copyspec_reads_on_as_it_reads_at_once(tokens: list[int], more: list[list[int]], gamma: int) -> None:
    session = ToyModel(vocab=4).session(tokens)
    draft = CopySpec(gamma)
    draft.begin(session, Laws())
    for fresh in more:
        session.commit(fresh)
        assert draft.propose(session, ROOMY, Seeded(0)).tokens == proposal(CopySpec(gamma), session.tokens).tokens


def test_copyspec_on_a_cycle_accepts_every_copy() -> None:
    """After one period of 30 tokens each call gives the copied tokens and one more: 11 exactly."""
    seen = [len(step.tokens) for step in steps(CopySpec(3, 10, "latest"), cycle(30, 32), [0], 150, 32)]
    first = next(i for i, n in enumerate(seen) if n > 1)
    assert set(seen[:first]) == {1}
    assert sum(seen[:first]) <= 33
    assert set(seen[first + 2 : -1]) == {11}


def test_copyspec_copies_less_where_copies_fall_and_all_where_they_stand() -> None:
    draft = CopySpec(gamma=1, copy=8)
    session = ToyModel(vocab=8).session([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0])
    draft.begin(session, Laws())
    lengths = []
    for stands in (0, 2, 4, 8):
        tree = draft.propose(session, ROOMY, Seeded(0))
        lengths.append(len(tree))
        other = 7 if tree.tokens[stands : stands + 1] == [6] else 6
        draft.observe(session, told(tree, [*tree.tokens[:stands], other]), Seeded(0))
    assert lengths == [8, 2, 4, 8]
    tree = draft.propose(session, ROOMY, Seeded(0))
    draft.observe(session, told(tree, tree.tokens[:1]), Seeded(0))  # cut short: nothing was refused
    assert len(draft.propose(session, ROOMY, Seeded(0))) == 8


def test_copyspec_without_a_match_costs_nothing() -> None:
    """Text in which no five tokens come twice: a target call a token, and nothing fed beside it."""
    prompt = torch.randperm(300, generator=torch.Generator().manual_seed(1)).tolist()
    seen = steps(CopySpec(gamma=5), cycle(300, 300), prompt[:100], 40, 300)
    assert len(seen) == 40
    assert not any(len(step.tree) for step in seen)


@pytest.mark.parametrize("draft", ["copyspec:gamma=1,copy=4", "mix(copyspec:gamma=1,copy=4,model:path=toy,length=2)"])
def test_copyspec_with_and_without_a_draft_model_is_greedy(draft: str) -> None:
    """Twenty prompts each: the tokens of plain decoding, with drafts accepted and refused."""
    drafted = accepted = 0
    for seed in range(20):
        toy = ToyModel(vocab=5, seed=seed)
        seen = steps(part("draft", draft), toy.lm, [seed % 5, 1, 2], 30, 5)  # type: ignore[arg-type]
        plain = steps(CopySpec(gamma=99), toy.lm, [seed % 5, 1, 2], 30, 5)
        assert [t for step in seen for t in step.tokens] == [t for step in plain for t in step.tokens]
        drafted += sum(len(step.tree) for step in seen)
        accepted += sum(len(step.verdict.path) for step in seen)
    assert 0 < accepted < drafted


# ---- recycling ---------------------------------------------------------------------------------------------------------


def test_recycling_unrolls_its_table_along_the_template() -> None:
    """Every node of the published tree is the guess of its rank after its parent's token, and its parent stands before it."""
    draft = Recycling("published").bind(ToyModel(vocab=50))
    draft.lore.known = {token: [(token * 7 + rank * 3 + 1) % 50 for rank in range(8)] for token in range(50)}
    session = ToyModel(vocab=50).session([4])
    tree = draft.propose(session, Budget(99, 99), Seeded(0))
    assert len(tree) == 80
    assert [tree.depths.count(depth) for depth in range(1, 7)] == [8, 21, 25, 15, 8, 3]
    for node, path in enumerate(draft._paths):
        assert tree.parents[node] < node
        parent = tree.words(tree.parents[node])[-1] if len(path) > 1 else 4
        assert tree.words(node)[-1] == draft.lore.known[parent][path[-1]]
        assert path[:-1] == (draft._paths[tree.parents[node]] if len(path) > 1 else ())


def test_recycling_on_a_cycle_takes_the_whole_first_chain() -> None:
    """A first-order cycle of nine: after one round all six levels stand, seven tokens a call; cold, nothing is drafted."""
    seen = steps(Recycling("published", prompt=False), cycle(9, 16), [0], 80, 16)
    assert len(seen[0].tree) == 0
    counts = [len(step.tokens) for step in seen]
    first = next(i for i in range(len(counts)) if sum(counts[:i]) >= 9)
    assert set(counts[first:-1]) == {7}


def told(tree: TokenTree, tokens: list[int]) -> Any:
    return Step(tree, None, None, None, tokens)  # type: ignore[arg-type]


# ---- suffix ------------------------------------------------------------------------------------------------------------


def occurrences(tokens: Sequence[int], words: Sequence[int]) -> int:
    return sum(tuple(tokens[i : i + len(words)]) == tuple(words) for i in range(len(tokens) - len(words) + 1))


def read(*texts: Sequence[int]) -> tuple[Automaton, list[int]]:
    """All texts in one automaton, in turns token by token, and what stands for each."""
    automaton, lasts = Automaton(), [0] * len(texts)
    for i in range(max(map(len, texts), default=0)):
        for which, text in enumerate(texts):
            if i < len(text):
                lasts[which] = automaton.add(text[i], lasts[which])
    return automaton, lasts


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_the_automaton_knows_every_substring_and_how_often_it_occurs(texts: list[list[int]]) -> None:
    """Against brute force, also in the states' longest strings, links, and the bound of two states a token."""
    automaton, lasts = read(*texts)
    size = sum(map(len, texts))
    assert len(automaton.link) <= max(2, 2 * size)
    everything = {tuple(t[i:j]) for t in texts for i in range(len(t)) for j in range(i + 1, len(t) + 1)}
    for words in everything:
        state = 0
        for token in words:
            state = automaton.after[state][token]
        if all(len(set(text)) > 1 for text in texts) and size < 32:  # chains of links below LINKS
            assert automaton.count[state] == sum(occurrences(text, words) for text in texts)
        assert automaton.length[automaton.link[state]] < len(words) <= automaton.length[state]
    for text, last in zip(texts, lasts, strict=True):
        assert automaton.length[last] == len(text)
    if len(texts) == 1:
        longest = automaton.length[automaton.link[lasts[0]]]
        assert longest == max(n for n in range(size) if n == 0 or occurrences(texts[0], texts[0][-n:]) > 1)


@given(TEXTS, TEXTS, TEXTS)
def test_strings_that_do_not_occur_lead_nowhere(tokens: list[int], others: list[int], words: list[int]) -> None:
    automaton, _ = read(tokens, others)
    state: int | None = 0
    for token in words:
        state = None if state is None else automaton.after[state].get(token)
    assert (state is not None) == (occurrences(tokens, words) + occurrences(others, words) > 0)


@given(TEXTS, TEXTS)
def test_a_match_is_the_longest_suffix_known_and_what_followed_it(tokens: list[int], words: list[int]) -> None:
    match = Match(read(tokens)[0], 0.5)
    for i, token in enumerate(words):
        match = match.then(token)
        known = [n for n in range(1, i + 2) if occurrences(tokens, words[i + 1 - n : i + 1])]
        assert match.length == max(known, default=0)
    if len(set(tokens)) > 1 and len(tokens) < 32:
        for followers in match.followers(1):
            assert any(
                dict(followers) == {t: times for t in range(4) if (times := occurrences(tokens, [*words[-n:], t]))}
                for n in known
            )


@given(TEXTS, TEXTS, st.integers(1, 3))
def test_chances_share_out_less_than_one_and_blend_as_defined(here: list[int], before: list[int], least: int) -> None:
    """Prediction by partial matching, written down a second time."""
    (own, (last,)), other = read(here), Match(read(before)[0], 5.0)
    for token in here:
        other = other.then(token)
    match = Match(own, 0.5, own.link[last], own.length[own.link[last]])
    wanted: dict[int, float] = {}
    rest = 1.0
    for new, levels in ((0.5, [*match.followers(least)]), (5.0, [*other.followers(least)])):
        for level in levels[:8]:
            if rest >= 0.02 and level:
                total = sum(times for _, times in level) + new * len(level)
                wanted = {t: wanted.get(t, 0.0) + rest * dict(level).get(t, 0) / total for t in {*wanted, *dict(level)}}
                rest *= new * len(level) / total
    law = chances((match, other), least)
    assert law == pytest.approx(wanted)
    assert sum(law.values()) == pytest.approx(1 - rest if wanted else 0.0)


@given(TEXTS, st.integers(1, 3), st.integers(1, 12))
def test_suffix_drafts_what_followed_a_suffix(tokens: list[int], shortest: int, nodes: int) -> None:
    """Every token of the tree stood behind the ``min`` tokens before it; nothing is drafted without a match."""
    tree = proposal(Suffix(min=shortest, nodes=nodes), tokens)
    assert len(tree) <= nodes
    assert bool(len(tree)) == any(occurrences(tokens, tokens[-n:]) > 1 for n in range(shortest, len(tokens)))
    for node in range(len(tree)):
        assert occurrences(tokens, [*tokens, *tree.words(node)][-shortest - 1 :])


def test_suffix_gives_the_chances_it_has() -> None:
    """1 2 was followed by 5 twice and by 6 once, 2 alone by 9 as well: the longer suffix goes first."""
    text = [1, 2, 5, 1, 2, 5, 1, 2, 6, 3, 2, 9, 1, 2]
    assert proposal(Suffix(factor=9.0), text, Budget(16, 1)).tokens == [5, 6, 9]


def test_suffix_remembers_earlier_requests_and_trusts_its_own_text_more() -> None:
    draft = Suffix()
    assert proposal(draft, [1, 2, 3, 4, 5]).tokens == []
    assert proposal(draft, [7, 1, 2]).tokens[:3] == [3, 4, 5]  # of the request before
    assert proposal(draft, [2, 6, 7, 1, 2]).tokens[0] == 6  # of its own, though the other match is longer
    assert proposal(Suffix(), [7, 1, 2]).tokens == []  # another object knows nothing
    assert proposal(Suffix(recall=0), [7, 1, 2]).tokens == []


@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 60))
def test_the_past_keeps_the_newest_texts_within_its_limit(texts: list[list[int]], limit: int) -> None:
    """Each is read once the next begins, also where it grew meanwhile; what was forgotten is gone."""
    past, opened = Past(limit), []
    for text in texts:
        opened.append(past.open())
        opened[-1].tokens += text
    past.open()
    kept = past.texts[:-1]
    tokens = [token for text in kept for token in text.tokens]
    assert tokens == [token for text in texts for token in text][-len(tokens) or sys.maxsize :]
    assert min(limit // 2, sum(map(len, texts))) <= len(tokens) <= limit
    assert len(past.automaton.link) <= 2 * limit + 1
    for text in texts:
        state: int | None = 0
        for token in text:
            state = None if state is None else past.automaton.after[state].get(token)
        assert (state is not None) == any(occurrences(one.tokens, text) for one in kept)


def test_the_past_stays_small_where_texts_are_taken_back() -> None:
    """A request that is rewound while others begin is read again each time."""
    past = Past(40)
    text = past.open()
    for i in range(30):
        text.tokens, text.read, text.last = [100 * i + j for j in range(20)], 0, 0
        past.open()
        assert len(past.automaton.link) <= 2 * 40 + 1 + 2 * 20


def test_suffix_loads_all_that_it_saved() -> None:
    draft = Suffix(recall=12)
    toy = ToyModel(vocab=8)
    for text in ([1, 2, 3, 4], [5, 6, 7, 0], [3, 3, 3]):
        ready(draft, toy).begin(toy.session(text), Laws())
    arrays = ready(draft, toy).lore.arrays()
    for recall, texts in ((12, [[1, 2, 3, 4], [5, 6, 7, 0], [3, 3, 3]]), (6, [[6, 7, 0], [3, 3, 3]])):
        past = Past(recall)
        past.merge(arrays, {})
        assert [text.tokens for text in past.texts] == texts


def test_suffix_prefers_the_frequent_and_trusts_long_matches() -> None:
    often = [1, 2, 5, 1, 2, 5, 1, 2, 6, 7, 1, 2]
    assert proposal(Suffix(nodes=3), often).tokens[0] == 5
    assert {5, 6} <= set(proposal(Suffix(nodes=16), often).tokens)
    assert len(proposal(Suffix(factor=1.0), [*range(8), *range(3)])) == 3
    assert len(proposal(Suffix(factor=1.0), [*range(8), *range(1)])) == 1


def test_suffix_reads_anew_when_text_is_taken_back() -> None:
    session = ToyModel(vocab=8).session([1, 2, 3, 1, 2, 3])
    draft = Suffix().bind(ToyModel(vocab=8))
    draft.begin(session, Laws())
    session.rewind(5)
    assert draft.propose(session, ROOMY, Seeded(0)).tokens[0] == 3


def test_suffix_drafts_from_the_corpus_where_it_promises_more(tmp_path: Path) -> None:
    corpus = Store.of([[1, 2, 3, 4, 5, 6, 7]] * 3, ToyModel(vocab=8).fingerprint())
    corpus.write(tmp_path / "store")
    for where in (corpus, str(tmp_path / "store"), tmp_path / "store"):
        draft = Suffix(corpus=where).bind(ToyModel(vocab=8))
        assert proposal(draft, [0, 0, 2, 3]).tokens == [4, 5, 6, 7]  # nothing of the kind in the text itself
        assert proposal(draft, [2, 3, 0, 2, 3]).tokens == [4, 5, 6, 7]  # the text itself says three tokens
        assert proposal(draft, [0, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5]).tokens[:3] == [
            4,
            3,
            2,
        ]  # a longer match in the text
        assert len(proposal(draft, [0, 0, 2, 3], Budget(2, 9))) == 2
        assert not len(proposal(draft, [0, 0, 2, 3], Budget(0, 9)))
        assert not len(proposal(draft, [0, 0, 2, 3], Budget(9, 0)))
    with pytest.raises(PartsClash, match="another tokenizer"):
        Suffix(corpus=corpus).bind(ToyModel(vocab=7))


# ---- aded --------------------------------------------------------------------------------------------------------------

TABLE = {(0, 1): {2: 0.6, 3: 0.4}, (1, 2): {3: 0.9, 0: 0.1}, (1, 3): {0: 1.0}, (2, 3): {1: 1.0}, (3, 0): {1: 1.0}}


def searched(table: dict[tuple[int, ...], dict[int, float]], **options: Any) -> TokenTree:
    draft = Aded(**options).bind(ToyModel(vocab=4))
    draft.lore.known = dict(table)
    return draft.propose(ToyModel(vocab=4).session([0, 1]), ROOMY, Seeded(0))


def test_aded_first_walks_the_likeliest_chain() -> None:
    assert searched(TABLE, simulations=1, depth=3).tokens == [2, 3, 1]
    assert searched(TABLE, simulations=1, depth=2).tokens == [2, 3]


def test_aded_explores_more_when_told_to() -> None:
    table = {(0, 1): {c: 0.5**c for c in range(2, 8)}}
    firsts = [len(searched(table, simulations=12, c1=c1).tokens) for c1 in (0.0, 0.5, 1.25, 3.0, 9.0)]
    assert firsts == sorted(firsts)
    assert firsts[0] < firsts[-1]


def test_aded_scores_as_the_formula_says() -> None:
    edge, a, b = Edge(0, 1.0), Edge(1, 0.75), Edge(2, 0.25)
    assert edge.choose([a, b], 1.25, 19652.0) is a
    edge.n, a.n, a.total = 4, 4, 0.4  # a: 0.1 + 0.75 * 2 / 5 * 1.25 = 0.475; b: 0.25 * 2 * 1.25 = 0.625
    assert edge.choose([a, b], 1.25, 19652.0) is b
    a.total = 1.2  # a: 0.675
    assert edge.choose([a, b], 1.25, 19652.0) is a


def test_aded_matrix_counts_prunes_backs_off_and_forgets() -> None:
    draft = Aded(k=2, contexts=4, rate=0.5).bind(ToyModel())
    draft.lore.learn((1, 2), {3: 1.0}, 0.5)
    before = 0.0
    for _ in range(5):
        draft.lore.learn((1, 2), {4: 1.0}, 0.5)
        chance = {edge.token: edge.chance for edge in draft._after((1, 2))}[4]
        assert chance > before
        before = chance
    draft.lore.learn((1, 2), {5: 1.0}, 0.5)
    assert [edge.token for edge in draft._after((1, 2))] == [5, 4]
    assert sum(edge.chance for edge in draft._after((1, 2))) == pytest.approx(1.0)
    assert [edge.token for edge in draft._after((7, 2))] == [5, 4]  # the pair is new: after 2 alone
    assert draft._after((7, 7)) == []
    draft.lore.learn((1, 3), {0: 1.0}, 0.5)
    draft.lore.learn((1, 4), {0: 1.0}, 0.5)
    assert len(draft.lore.known) == 4
    assert (1, 2) not in draft.lore.known


def test_aded_learns_a_cycle_and_keeps_it() -> None:
    """Empty at first, it drafts full depth once the states were visited; a second request starts warm."""
    draft = Aded(depth=4)
    cold = [len(step.tokens) for step in steps(draft, cycle(7, 8), [0], 60, 8)]
    warm = [len(step.tokens) for step in steps(draft, cycle(7, 8), [0], 60, 8)]
    assert cold[0] == 1
    assert set(cold[-5:-1]) == {5}
    assert set(warm[:-1]) == {5}


def test_aded_with_the_targets_own_table_is_accepted_whole() -> None:
    """A tri-gram target over twenty tokens: the first walk is its greedy text, so every call accepts the whole depth.

    Further walks share the 12 nodes with it and cost it a little. With an empty matrix nothing is accepted at first, and
    nearly the depth once the states were visited.
    """
    depth = 5
    some: list[int] = []
    for seed in range(5):
        lm = table(20, seed, order=2, sharpness=6.0)
        exact: dict[tuple[int, ...], dict[int, float]] = {}
        for pair in itertools.product(range(20), repeat=2):
            best = lm(pair).softmax(-1).topk(12)
            exact[pair] = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        for simulations in (1, 24):
            draft = Aded(depth=depth, simulations=simulations)
            draft.bind(ToyModel(vocab=20)).lore.known = dict(exact)
            accepted = [len(step.verdict.path) for step in steps(draft, lm, [0, 1], 60, 20)[:-1]]
            assert simulations > 1 or set(accepted) == {depth}
            some += accepted if simulations > 1 else []
        learnt = [len(step.verdict.path) for step in steps(Aded(depth=depth), lm, [0, 1], 300, 20)]
        assert learnt[0] == 0
        late = learnt[len(learnt) // 2 : -1]
        assert sum(late) / len(late) > 0.8 * depth
    assert sum(some) / len(some) > 0.98 * depth


def test_aded_trusts_refused_rows_less() -> None:
    """Row 1 stands behind a refused node: its law moves the matrix by a quarter."""
    toy = ToyModel(vocab=4)
    session = toy.session([0, 1])
    draft = Aded(rate=0.4).bind(toy)
    draft.lore.known = {(0, 1): {3: 1.0}, (1, 3): {3: 1.0}}
    tree = draft.propose(session, Budget(1, 1), Seeded(0))
    rows = forward(session, tree)
    rows.logits = torch.tensor([[9.0, 0.0, 0.0, 0.0]] * 2)
    draft.observe(session, Step(tree, rows, None, Verdict((), (0,)), [0]), Seeded(0))  # type: ignore[arg-type]
    assert draft.lore.known[0, 1][3] == pytest.approx(0.6, abs=1e-3)
    assert draft.lore.known[1, 3][3] == pytest.approx(0.9, abs=1e-3)


# ---- mix ---------------------------------------------------------------------------------------------------------------


@dataclass
class Says(Drafter):
    """Proposes fixed paths, and books what it is asked and told."""

    said: tuple[tuple[int, ...], ...] = ()
    needs = frozenset({Cap.EMBEDS})

    def begin(self, session: Session, laws: Laws) -> None:
        self.asked: list[Budget] = []
        self.seen: list[Step] = []

    def propose(self, session: Session, budget: Budget, rng: Any) -> TokenTree:
        self.asked.append(budget)
        return TokenTree.trie([path[: budget.depth] for path in self.said], budget.nodes)

    def observe(self, session: Session, step: Step, rng: Any) -> None:
        self.seen.append(step)


PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), max_size=4).map(tuple)


@given(PATHS, PATHS, PATHS)
def test_a_mix_is_the_union_of_its_parts(a: Any, b: Any, c: Any) -> None:
    """paths(T) = union of the parts' paths, each once; the order changes nothing but the order; with itself, itself."""
    alone = [paths(proposal(Says(one), [0])) for one in (a, b, c)]
    tree = proposal(Mix((Says(a), Says(b), Says(c)), nodes=99), [0])
    assert paths(tree) == set().union(*alone)
    assert len(tree) == len(paths(tree))
    assert not any(tree.ghost)
    assert paths(proposal(Mix((Mix((Says(c), Says(a)), nodes=99), Says(b)), nodes=99), [0])) == paths(tree)
    twice, one = proposal(Mix((Says(a), Says(a)), nodes=99), [0]), proposal(Says(a), [0])
    assert (twice.tokens, twice.parents) == (one.tokens, one.parents)


@given(st.lists(PATHS, min_size=1, max_size=4), st.integers(0, 9), st.integers(1, 9))
def test_a_mix_keeps_the_budget(said: list[Any], budget: int, nodes: int) -> None:
    """Each part may fill it; the tree keeps it, and has no node without its parent."""
    mix = ready(Mix(tuple(map(Says, said)), nodes=nodes), ToyModel(vocab=8))
    tree = asked(mix, [0], Budget(budget, 2))
    whole = proposal(Mix(tuple(map(Says, said)), nodes=99), [0], Budget(99, 2))
    assert len(tree) == min(budget, nodes, len(paths(whole)))
    assert paths(tree) <= paths(whole)
    assert max(tree.depths, default=0) <= 2
    assert {part.asked[0].nodes for part in mix._running} == {min(budget, nodes)}  # type: ignore[attr-defined]


def test_a_mix_keeps_what_came_true_before() -> None:
    """Two parts guess apart from each other: the room goes to the one that was right, also in the next request."""
    wrong, right = Says(((1,), (2,))), Says(((3, 4),))
    mix = ready(Mix((wrong, right), nodes=2), ToyModel(vocab=8))
    assert asked(mix, [0]).tokens == [1, 2]  # nothing is known: the first part's, and the wider tree
    for _ in range(8):
        observed(mix, ToyModel().session([0]), told(mix._merged, [3, 4, 5]), Seeded(0))
        tree = asked(mix, [0])
    assert tree.tokens == [3, 4]
    fresh = Mix((wrong, right), nodes=2)
    assert proposal(fresh, [0]).tokens == [1, 2]


def test_a_mix_reaches_as_far_as_the_best_of_its_parts() -> None:
    """On one greedy text, step by step: exactly."""
    text = [token for step in steps(NGram(min=1), table(6, 3, sharpness=4.0), [0, 1], 50, 6) for token in step.tokens]
    parts = (NGram(min=1, length=3), Recycling(), CopySpec(gamma=1, copy=3))
    better = 0
    for at in range(3, len(text) - 6):
        reach = []
        for draft in (*parts, Mix(parts, nodes=60)):
            tree = proposal(copy.deepcopy(draft), text[:at])
            depths = [
                tree.depths[n] for n in range(len(tree)) if tree.words(n) == tuple(text[at : at + tree.depths[n]])
            ]
            reach.append(max(depths, default=0))
        assert reach[-1] == max(reach[:-1])
        better += len(set(reach[:-1])) > 1
    assert better


def test_the_parts_of_a_mix_are_told_checked_and_kept_apart() -> None:
    mix = Mix((Says(((1,),)), Recycling()))
    session = ToyModel().session([0, 1])
    bound = ready(mix, ToyModel())
    first, second = copy.copy(bound), copy.copy(bound)  # two rows of a batch
    first.begin(session, Laws())
    second.begin(session, Laws())
    assert first._running[0] is not second._running[0]
    assert first._running[1].lore is second._running[1].lore  # type: ignore[attr-defined]
    tree = proposed(first, session, ROOMY, Seeded(0))
    rows = forward(session, tree)
    observed(first, session, step := Step(tree, rows, None, Verdict((), (0,)), [0]), Seeded(0))  # type: ignore[arg-type]
    assert first._running[0].seen == [step]  # type: ignore[attr-defined]
    assert second._running[0].seen == []  # type: ignore[attr-defined]
    with pytest.raises(PartsClash, match="test_drafters:Says' needs a model with free embeddings"):
        build(recipe(mix), ToyModel())


def test_a_mix_of_drawn_drafts_is_for_greedy_decoding() -> None:
    """There any guess is as good as another; where tokens are sampled, merging drawn nodes would not be exact."""
    toy = ToyModel()
    for spec in ("mix(model:length=2,width=2,ngram:min=1)", "mix(mix(jacobi,model:length=1),recycling)"):
        greedy = build(Recipe.of(spec), toy)
        assert variation(wanted(toy, greedy), produced(toy, greedy, Count())) < 1e-9
        with pytest.raises(PartsClash, match="'model' draws siblings distinct, which draft part 'mix' cannot"):
            build(Recipe.of(spec, guide="temperature:0.9"), toy)


def test_jacobi_reads_its_own_rows_in_a_mix() -> None:
    """Beside other drafts it makes the guesses that it makes alone."""
    draft, other = Jacobi(3), Jacobi(3)
    session = ToyModel().session([0, 1, 2])
    for one in (draft, other):
        one.begin(session, Laws())
    for _ in range(6):
        chain = draft.propose(session, ROOMY, Seeded(0))
        assert chain.tokens == other.propose(session, ROOMY, Seeded(0)).tokens
        both = TokenTree.trie([[(chain.tokens[0] + 1) % 3, 0], chain.tokens], 9)
        for one, tree in ((draft, chain), (other, both)):
            rows = forward(session, tree)
            step = Step(tree, rows, None, Verdict(()), [int(rows.logits[0].argmax())])  # type: ignore[arg-type]
            one.observe(session, step, Seeded(0))
        session.commit(step.tokens)


# ---- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("copyspec:gamma=0", "gamma >= 1"),
        ("copyspec:pick=last", "first or latest"),
        ("suffix:min=0", "min >= 1"),
        ("suffix:factor=0", "factor > 0"),
        ({"suffix": {"corpus": 3}}, "suffix:corpus must be text or a path or Store, not 3"),
        ("aded:depth=0", "depth"),
        ("aded:rate=0", "0 < rate <= 1"),
        ("aded:c2=-1", "c2 > 0"),
    ],
)
def test_bad_parameters_are_named(spec: Any, message: str) -> None:
    with pytest.raises(DecoderyError, match=message):
        part("draft", spec)
