"""Drafts made of two sources: a drawn tree merged with a retrieved one, and a draft that is itself decoded speculatively."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.chooser import Seeded
from decodery.core.errors import PartsClash
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, Tensor
from decodery.draft.cascade import Cascade
from decodery.draft.mix import Mix
from decodery.draft.model import ModelDraft
from decodery.draft.ngram import NGram
from decodery.draft.rasd import Rasd, pruned
from decodery.draft.recycling import Recycling
from decodery.draft.suffix import Suffix
from decodery.guide.temperature import Temperature
from decodery.model.arena import Answer, Arena, Feed
from decodery.model.toy import LanguageModel, ToyArena, ToyModel, table
from decodery.run.build import build
from decodery.run.spec import describe, part

from ..laws.exact import Count, produced, recipe, specimens, variation, wanted
from ..running import proposed, speculate, together

ROOMY = Budget(64, 64)
WARM = (Temperature(0.9),)
PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), max_size=4).map(tuple)


@dataclass
class Says(Drafter):
    """Proposes fixed paths."""

    said: tuple[tuple[int, ...], ...] = ()

    def propose(self, session: Any, budget: Budget, rng: Any) -> TokenTree:
        return TokenTree.trie([path[: budget.depth] for path in self.said], budget.nodes)


@dataclass
class Counted(ToyModel):
    """A toy with room, whose draft model is ``draft``; both count their forwards."""

    vocab: int = 4
    draft: LanguageModel = field(default_factory=lambda: table(4, 7))
    forwards: list[int] = field(default_factory=lambda: [0])
    other: Counted | None = None

    def arena(self, lanes: int = 1) -> Arena:
        forwards = self.forwards

        class Counting(ToyArena):
            def _compute(self, feed: Feed) -> Answer:
                forwards[0] += 1
                return super()._compute(feed)

        return Counting(self.lm, self.draft, 4000)

    def companion(self, spec: object) -> Counted:
        self.other = Counted(self.vocab)
        self.other.lm = self.draft
        return self.other


def paths(tree: TokenTree) -> set[tuple[int, ...]]:
    return {tree.words(node) for node in range(len(tree))}


def propose(
    drafter: Drafter, text: Sequence[int], greedy: bool = True, budget: Budget = ROOMY, seed: int = 1, **toy: Any
) -> TokenTree:
    model = Counted(**toy)
    drafter = copy.deepcopy(drafter).bind(model)
    session = model.session(text)
    drafter.begin(session, Laws((), greedy))
    return proposed(drafter, session, budget, Seeded(seed))


# ---- merging -----------------------------------------------------------------------------------------------------------


@given(PATHS, PATHS)
def test_grafting_is_a_union_and_with_itself_changes_nothing(a: Any, b: Any) -> None:
    one, two = TokenTree.trie(a, 99), TokenTree.trie(b, 99)
    tree = TokenTree.trie(a, 99)
    at = tree.graft(two)
    assert paths(tree) == paths(one) | paths(two)
    assert len(tree) == len(paths(tree))
    assert not any(tree.ghost)
    assert all(tree.words(place) == two.words(node) for node, place in at.items())
    one.graft(TokenTree.trie(a, 99))
    assert one == TokenTree.trie(a, 99)
    two.graft(TokenTree.trie(a, 99))
    assert paths(two) == paths(tree)


def test_a_graft_stands_behind_drawn_siblings_and_leaves_them_as_they_were() -> None:
    q = torch.tensor([0.2, 0.5, 0.3])
    tree = TokenTree(scheme=Scheme.DISTINCT)
    tree.add(1, ROOT, q)
    tree.graft(TokenTree.trie([(2, 0), (1, 1)], 9), law=lambda token: torch.eye(3)[token])
    assert (tree.tokens, tree.parents) == ([1, 2, 0, 1], [ROOT, ROOT, 1, 0])
    assert tree.q[0] is q
    assert [x.tolist() for x in tree.q[1:] if x is not None] == torch.eye(3)[[2, 0, 1]].tolist()


# ---- rasd --------------------------------------------------------------------------------------------------------------


@given(PATHS, st.integers(1, 3), st.integers(1, 2), st.integers(0, 20))
def test_fusion_under_a_greedy_law(said: Any, length: int, width: int, seed: int) -> None:
    """paths(T) = those of the draft model's tree and the pruned retrieved one; so no step accepts less than either's."""
    options: dict[str, Any] = {"vocab": 3, "draft": table(3, seed)}
    drawn = propose(ModelDraft(path="toy", length=length, width=width), [0, 1], **options)
    for k in (1, 2, 3):
        tree = propose(Rasd(path="toy", length=length, width=width, retrieve=Says(said), k=k), [0, 1], **options)
        likely = set(options["draft"]((0, 1)).topk(k).indices.tolist())
        found = {words for words in paths(TokenTree.trie(said, 16)) if words[0] in likely}
        assert paths(tree) == paths(drawn) | found
        assert len(tree) == len(paths(tree)) <= len(drawn) + len(found)
        assert tree.scheme is Scheme.CERTAIN
        assert all(q is None for q in tree.q)
    assert (drawn.tokens, drawn.parents) == (tree.tokens[: len(drawn)], tree.parents[: len(drawn)])


@given(PATHS, st.integers(1, 40), st.sampled_from([Budget(1, 1), Budget(3, 2), Budget(5, 9), Budget(64, 2), ROOMY]))
def test_fusion_where_tokens_are_sampled(said: Any, seed: int, budget: Budget) -> None:
    """The drawn tree is that of ``model`` with the same choices, and stands first; the rest is one-hot; sizes are bounded."""
    drawn = propose(ModelDraft(path="toy", length=2, width=2), [0, 1], False, budget, seed)
    tree = propose(Rasd(path="toy", length=2, width=2, retrieve=Says(said), nodes=6), [0, 1], False, budget, seed)
    n = len(drawn)
    assert (tree.tokens[:n], tree.parents[:n]) == (drawn.tokens, drawn.parents)
    for mine, theirs in zip(tree.q, drawn.q, strict=False):
        assert torch.equal(mine, theirs)  # type: ignore[arg-type]
    for token, q in zip(tree.tokens[n:], tree.q[n:], strict=True):
        assert q is not None
        assert float(q[token]) == float(q.sum()) == 1
    assert len(tree) <= min(budget.nodes, n + 6)
    assert max(tree.depths) <= budget.depth
    assert not any(tree.ghost)
    assert tree.settled == (not said or min(budget.nodes - 2 * min(2, budget.depth), len(said)) <= 0)


def steps(draft: Drafter, toy: ToyModel, text: Sequence[int], n: int) -> list[Step]:
    built = build(recipe(draft), toy)
    parts = (built.draft, built.verify, built.laws, built.constrain)
    program = speculate(toy.session(text), *parts, Seeded(1), Stop(max_new_tokens=n), built.want)
    return [step for _, step in together([program])]


def copying(words: tuple[int, ...]) -> Tensor:
    """Sure to repeat what stood 7 tokens before, once there is such a thing."""
    return torch.eye(4, dtype=torch.float64)[words[-7] if len(words) >= 7 else 0] * 6


def copies(words: tuple[int, ...]) -> Tensor:
    """Mostly a copy of the text, now and then something else."""
    return copying(words) + table(4, 3, sharpness=3.5)(words)


DOCUMENT = [0, 3, 1, 2, 1, 0, 2] * 3
WEAK = table(4, 7, order=1)
"""A draft model that is right by chance."""


def test_no_step_accepts_less_than_by_either_tree() -> None:
    """Each step accepts what the better one of both would, and each is the better one somewhere."""
    toy = Counted(draft=WEAK)
    toy.lm = lambda words: copies(words) + 2 * WEAK(words)
    more = [0, 0]
    for step in steps(Rasd(path="toy", length=3, width=2, k=2), toy, DOCUMENT, 120)[:-1]:
        context = tuple(step.rows.context)
        drawn = propose(ModelDraft(path="toy", length=3, width=2), context, draft=WEAK)
        told = propose(Rasd().retrieve, context, budget=Budget(16, 64))
        kept = told.only(pruned(told, WEAK(context).softmax(-1), 2))
        best = list(context)
        for _ in range(12):
            best.append(int(toy.lm(tuple(best)).argmax()))
        each = [reach(tree, best[len(context) :]) for tree in (drawn, kept)]
        assert len(step.verdict.path) == max(each)
        more = [more[0] + (each[0] > each[1]), more[1] + (each[1] > each[0])]
    assert min(more) >= 2


def reach(tree: TokenTree, best: Sequence[int]) -> int:
    """How far a tree goes along the target's own choices."""
    return max((n for n in range(1, len(best) + 1) if tuple(best[:n]) in paths(tree)), default=0)


def test_retrieval_helps_where_the_text_repeats_itself_and_harms_nowhere() -> None:
    """Mean accepted length, against the draft model alone; no tree is above its budget."""
    rounds = {}
    for kind, lm in (("copies", copies), ("random", table(4, 5, order=4))):
        for name, draft in (
            ("model", ModelDraft(path="toy", length=3)),
            ("rasd", Rasd(path="toy", length=3, nodes=6, k=2)),
        ):
            toy = Counted(draft=WEAK)
            toy.lm = lm
            found = steps(draft, toy, DOCUMENT, 200)
            assert max(len(step.tree) for step in found) <= 3 + 6
            rounds[kind, name] = len(found)
    assert 1.3 * rounds["copies", "rasd"] < rounds["copies", "model"]
    assert rounds["random", "rasd"] <= rounds["random", "model"]


def test_pruning_keeps_whole_branches_the_likeliest_and_most_frequent_first() -> None:
    found = TokenTree.trie([(0, 1), (1, 1), (0, 2), (2, 2), (3,)], 99)
    law = torch.tensor([0.3, 0.4, 0.3, 0.0])
    assert [found.words(node) for node in pruned(found, law, 9)] == [(0,), (0, 1), (0, 2), (1,), (1, 1), (2,), (2, 2)]
    assert [found.words(node) for node in pruned(found, law, 1)] == [(1,), (1, 1)]
    assert pruned(TokenTree(), law, 3) == []


def test_nothing_survives_without_a_law_or_a_likely_beginning() -> None:
    def sure(words: tuple[int, ...]) -> Tensor:
        return torch.tensor([0.0, 900.0, 0.0, 0.0], dtype=torch.float64)

    tree = propose(Rasd(path="toy", length=2, retrieve=Says(((0, 1), (2,)))), [0, 1], draft=sure)
    assert tree.tokens == [1, 1]
    assert tree.settled
    assert len(propose(Rasd(path="toy", retrieve=Says(((0, 1),))), [0, 1], budget=Budget(0, 0))) == 0


@pytest.mark.parametrize("verify", ["residual", "block", "sample-and-match"])
@pytest.mark.parametrize(
    "said", [((0, 1), (1, 0)), ((0, 0), (0, 1), (0, 2), (1, 2)), ((2, 0), (2, 1), (1, 1), (0, 2), (0, 0))]
)
def test_the_mixed_rule_is_exact(verify: str, said: Any) -> None:
    """Certain nodes beside and below drawn ones, two levels of each, also where not all of them fit."""
    count = Count()
    for nodes in (2, 9):
        draft = Rasd(path="toy", length=2, width=2, retrieve=Says(said), nodes=nodes, k=3)
        toy = ToyModel()
        built = build(recipe(draft, part("verify", verify), WARM), toy)
        assert variation(wanted(toy, built), produced(toy, built, count)) < 1e-9
    assert count.accepted
    assert count.refused


def test_a_retriever_that_draws_is_for_greedy_decoding() -> None:
    spec = {"rasd": {"path": "toy", "retrieve": {"model": {"length": 2}}}}
    assert describe(part("draft", spec)) == spec
    build(recipe(part("draft", spec)), ToyModel())
    with pytest.raises(PartsClash, match="'model' draws siblings distinct, which draft part 'rasd' cannot merge"):
        build(recipe(part("draft", spec), None, WARM), ToyModel())


# ---- cascade -----------------------------------------------------------------------------------------------------------


INNER = [
    NGram(),
    NGram(min=1, length=3, width=3),
    Suffix(),
    Says(((0, 1), (1,), (2, 2))),
    ModelDraft(length=2, width=2),
]


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: str(describe(inner)) if inner is not INNER[3] else "says")
@pytest.mark.parametrize("path", ["toy", ""])
def test_a_cascade_drafts_what_its_draft_model_would(inner: Drafter, path: str) -> None:
    """Greedily the chain of ``model``, token for token, whatever is guessed; under every length and budget."""
    for length in (1, 2, 5, 9):
        for budget in (ROOMY, Budget(3, 9), Budget(9, 1), Budget(0, 0)):
            for text in ([0, 1], [0, 1, 2, 0, 1, 3, 0, 1]):
                chain = propose(ModelDraft(path=path, length=length), text, budget=budget)
                tree = propose(Cascade(path=path, length=length, inner_draft=inner), text, budget=budget)
                assert (tree.tokens, tree.parents) == (chain.tokens, chain.parents)
                assert tree.scheme is Scheme.CERTAIN


def test_a_cascade_with_fewer_forwards_of_its_draft_model_drafts_the_same_text() -> None:
    """On a text that repeats itself, over a whole request: the same trees as ``model``, at less than half the forwards."""
    cost = {}
    drafted = {}
    for name, draft in (("model", ModelDraft(path="toy", length=8)), ("cascade", Cascade(path="toy", length=8))):
        toy = Counted(draft=copying)
        toy.lm = copies
        drafted[name] = [step.tree.tokens for step in steps(draft, toy, DOCUMENT, 60)]
        assert toy.other is not None
        cost[name] = toy.other.forwards[0]
    assert drafted["model"] == drafted["cascade"]
    assert len(drafted["model"]) > 7, "nothing was refused"
    assert 2 * cost["cascade"] < cost["model"]


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 2), min_size=1, max_size=6)), max_size=8))
def test_ngram_forgets_what_was_taken_back(edits: Any) -> None:
    """After any drafts and refusals, what it proposes is what it would after reading the text all at once."""
    session, ngram = ToyModel().session([0, 1]), NGram(min=1, max=3, length=3, width=3)
    ngram.begin(session, Laws())
    for back, more in edits:
        proposed(ngram, session, ROOMY, Seeded(0))
        session.rewind(max(1, len(session.tokens) - back))
        proposed(ngram, session, ROOMY, Seeded(0))
        session.commit(more)
        assert proposed(ngram, session, ROOMY, Seeded(0)) == propose(
            NGram(min=1, max=3, length=3, width=3), session.tokens
        )


def test_a_drawn_cascade_says_the_law_of_each_token() -> None:
    for seed in range(1, 20):
        tree = propose(Cascade(path="toy", length=6, inner_draft=NGram(min=1)), [0, 1, 2, 0, 1], False, seed=seed)
        assert (len(tree), tree.scheme, tree.settled) == (6, Scheme.IID, False)
        for node in range(len(tree)):
            law = Counted().draft((0, 1, 2, 0, 1, *tree.words(node)[:-1])).softmax(-1)
            assert tree.q[node] == pytest.approx(law)


@pytest.mark.parametrize("inner", [NGram(min=1, length=2, width=2), ModelDraft(length=2, width=2)], ids=describe)
@pytest.mark.parametrize("verify", ["residual", "block"])
def test_a_cascade_is_exact_whatever_draws_its_guesses(inner: Drafter, verify: str) -> None:
    for path in ("toy", ""):
        toy, count = ToyModel(), Count()
        built = build(recipe(Cascade(path=path, length=2, inner_draft=inner), part("verify", verify), WARM), toy)
        assert variation(wanted(toy, built), produced(toy, built, count)) < 1e-9
        assert count.accepted


@pytest.mark.parametrize(
    "spec", ["rasd:k=0", "rasd:nodes=0", "rasd:length=0", "rasd:width=0", "cascade:length=0", "cascade:guess=0"]
)
def test_bad_parameters_are_named(spec: str) -> None:
    name, _, rest = spec.partition(":")
    with pytest.raises(Exception, match=rf"{name} needs .*{rest}"):
        part("draft", spec)


@pytest.mark.parametrize("spec", [name for name, _ in specimens("draft")])
def test_every_drafter_goes_into_a_mix(spec: str) -> None:
    """It then sees the others' guesses in the tree, and its own may be missing: greedy texts stay as they are."""
    for seed, nodes in itertools.product(range(4), (2, 9)):
        toy = ToyModel(vocab=3, seed=seed)

        def text(draft: Drafter, toy: ToyModel = toy) -> list[int]:
            built = build(recipe(draft), toy)
            parts = (built.draft, built.verify, built.laws, built.constrain, Seeded(0), Stop(max_new_tokens=12))
            program = speculate(toy.session([0, 1]), *parts, built.want)
            return [token for _, step in together([program]) for token in step.tokens]

        plain = text(part("draft", "none"))  # type: ignore[arg-type]
        for first in (True, False):
            for other in (Recycling(), NGram(min=1)):
                mine: Any = dict(specimens("draft"))[spec]
                assert text(Mix((mine, other) if first else (other, mine), nodes=nodes)) == plain
