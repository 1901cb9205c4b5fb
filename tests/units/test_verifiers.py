"""What each verifier promises beyond exactness: how much it accepts, against its paper and against the others.

All figures are by enumeration; ``pytest tests/units/test_verifiers.py -s -k table`` prints the tables.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import networkx
import pytest
import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.law import Law
from decodery.core.roles import Drafter, Laws, Verifier
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Rows, Scheme, Tensor
from decodery.guide.temperature import Temperature
from decodery.model.toy import ToyModel, table
from decodery.model.turn import forward
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.run.spec import part
from decodery.verify.residual import Residual
from decodery.verify.spectr import SpecTr, least_rho
from decodery.verify.typical import Typical

from ..laws.exact import PROMPT
from ..running import proposed

P = torch.tensor([0.5, 0.05, 0.15, 0.3], dtype=torch.float64)
Q = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)
Verify = Callable[[TokenTree, Law, Rows, Chooser], Any]


def verifier(name: str) -> Any:
    return part("verify", name)


def rows_of(tree: TokenTree, p: Callable[[tuple[int, ...]], Tensor]) -> Rows:
    """The rows of a target whose law after the words of a path is ``p(path)``."""
    live = tree.live()
    index = [live.index(i) + 1 if i in live else None for i in range(len(tree))]
    paths = [(), *(tree.words(i) for i in live)]
    return Rows(torch.stack([p(path).log() for path in paths]), (0,), paths, index, 1)


def siblings(q: Tensor, k: int, rng: Chooser, replace: bool = True) -> TokenTree:
    tree = TokenTree(scheme=Scheme.IID if replace else Scheme.DISTINCT)
    for _ in range(k):
        tree.add(token := rng.pick(q), q=q)
        if not replace:
            q = q.index_fill(0, torch.tensor(token), 0.0)
            if not float(q.sum()) > 0:
                break
            q = q / q.sum()
    return tree


def one_level(verify: Verify, p: Tensor, q: Tensor, k: int, replace: bool = True) -> tuple[list[float], float]:
    """The law of the next token, and how likely a draft was accepted."""

    def once(rng: Chooser) -> tuple[int, bool]:
        tree = siblings(q, k, rng, replace)
        rows = rows_of(tree, lambda _: p)
        verdict = verify(tree, Law(rows.logits, greedy=False), rows, rng)
        return verdict.tokens(tree)[0], bool(verdict.path)

    fate = enumerate_law(once)
    law = [sum(w for (token, _), w in fate.items() if token == i) for i in range(len(p))]
    return law, sum(w for (_, accepted), w in fate.items() if accepted)


def pairs(count: int, vocab: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return [tuple(torch.randn(2, vocab, dtype=torch.float64).mul(1.5).softmax(-1)) for _ in range(count)]  # type: ignore[misc]


def optimum(p: Tensor, q: Tensor, k: int) -> float:
    """The most that any transport from k i.i.d. drafts can accept: the linear program over ``V^k x V`` couplings.

    It is a flow from tuples to the tokens in them, so by duality the least cut: over all sets T of tokens,
    ``p(T) + P(the tuple is not within T)``.
    """
    sets = itertools.chain.from_iterable(itertools.combinations(range(len(p)), n) for n in range(len(p) + 1))
    return min(float(p[list(s)].sum()) + 1 - float(q[list(s)].sum()) ** k for s in sets)


def test_the_optimum_is_that_of_the_linear_program() -> None:
    """Solved as it stands, as a greatest flow from tuples of drafts to target tokens, on tiny vocabularies."""
    for p, q in pairs(5, 3):
        assert optimum(p, q, 1) == pytest.approx(float(torch.minimum(p, q).sum()))
        for k in (2, 3):
            program = networkx.DiGraph()
            for drafts in itertools.product(range(len(p)), repeat=k):
                program.add_edge("source", drafts, capacity=float(q[list(drafts)].prod()))
                for token in set(drafts):
                    program.add_edge(drafts, token)
            for token, chance in enumerate(p.tolist()):
                program.add_edge(token, "sink", capacity=chance)
            assert optimum(p, q, k) == pytest.approx(networkx.maximum_flow_value(program, "source", "sink"))
    assert optimum(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), 2) == pytest.approx(0.75)


# ---- SpecTr --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "rho", "accepted"), [(1, 1.0, 0.45), (2, 1.58443, 0.65844), (3, 2.10003, 0.71000)])
def test_spectr_on_the_reference_vectors(k: int, rho: float, accepted: float) -> None:
    assert least_rho(P, Q, k) == pytest.approx(rho, abs=1e-5)
    law, chance = one_level(SpecTr(), P, Q, k)
    assert law == pytest.approx(P.tolist(), abs=1e-9)
    assert chance == pytest.approx(accepted, abs=1e-5)


def test_spectr_accepts_nearly_what_the_best_transport_does() -> None:
    """Theorem: between 1 - 1/e of the optimum and the optimum; exact on every pair."""
    ratios = []
    for (p, q), k in [*((pair, 2) for pair in pairs(10, 4)), *((pair, 3) for pair in pairs(6, 3))]:
        law, chance = one_level(SpecTr(), p, q, k)
        best = optimum(p, q, k)
        assert law == pytest.approx(p.tolist(), abs=1e-9)
        assert (1 - 1 / math.e) * best <= chance <= best + 1e-9
        ratios.append(chance / best)
    assert min(ratios) < 0.999, "k-SEQ is no optimal transport: the bound would be idle"


def test_table_spectr_on_two_hundred_pairs() -> None:
    """By the closed form 1 - (1 - beta)^k, which is that of the enumeration."""
    ratios = []
    for number, (p, q) in enumerate(pairs(200, 4)):
        beta = float(torch.minimum(q, p / least_rho(p, q, 2)).sum())
        chance, best = 1 - (1 - beta) ** 2, optimum(p, q, 2)
        assert number >= 5 or chance == pytest.approx(one_level(SpecTr(), p, q, 2)[1], abs=1e-9)
        assert (1 - 1 / math.e) * best <= chance <= best + 1e-9
        ratios.append(chance / best)
    print(f"k-SEQ / best transport: least {min(ratios):.4f}, mean {sum(ratios) / len(ratios):.4f}")
    assert 0.85 < min(ratios) < sum(ratios) / len(ratios) < 0.999


def test_spectr_of_one_path_is_the_chain_rule_draw_for_draw() -> None:
    """The same verdicts from the same random numbers as ``residual``, on chains of three drafts."""
    taken = set()
    for seed in range(1, 120):
        a, b = Seeded(seed), Seeded(seed)
        p, q = pairs(7, 4)[seed % 7]
        tree, node = TokenTree(scheme=Scheme.IID), ROOT
        for _ in range(3):
            node = tree.add(a.pick(q), node, q)
            b.pick(q)
        rows = rows_of(tree, lambda path, p=p: p.roll(len(path)))  # type: ignore[misc]
        law = Law(rows.logits, greedy=False)
        plain = Residual()(tree, law, rows, b)
        assert SpecTr()(tree, law, rows, a) == plain
        assert a.noise() == b.noise(), "both took as many random numbers"
        taken.add(len(plain.path))
    assert taken == {0, 1, 2, 3}


def test_rho_is_the_least_that_leaves_a_residual() -> None:
    for p, q in pairs(50, 6):
        for k in (2, 3, 5):

            def residual(rho: float, p: Tensor = p, q: Tensor = q, k: int = k) -> float:
                taken = torch.minimum(q, p / rho)
                beta = float(taken.sum())
                return float((p - taken * (1 - (1 - beta) ** k) / beta).min())

            rho = least_rho(p, q, k)
            assert 1 <= rho <= k
            assert residual(rho) > -1e-9
            assert rho == 1 or residual(0.98 * rho) < 0


def test_spectr_on_distinct_siblings_would_be_wrong() -> None:
    """So the builder refuses it: the suite sees the mistake that it prevents."""
    law, _ = one_level(SpecTr(), P, Q, 2, replace=False)
    assert sum(abs(a - b) for a, b in zip(law, P.tolist(), strict=True)) / 2 > 0.05
    with pytest.raises(PartsClash, match="draws siblings distinct, for which verify part 'spectr' is not exact"):
        build(Recipe.of("model:path=toy", "spectr", "temperature:0.9"), ToyModel())


def test_disjoint_laws() -> None:
    p, q = torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([0.0, 0.5, 0.5]).double()
    for name in ("spectr", "multi-round", "residual", "block", "sample-and-match"):
        law, chance = one_level(verifier(name), p, q, 2)
        assert (law[0], chance) == pytest.approx((1.0, 0.0))


# ---- multi-round, sample-and-match -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "accepted"), [(1, 0.45), (2, 0.655), (3, 0.6895)])
def test_multi_round_equals_residual_on_independent_siblings(k: int, accepted: float) -> None:
    law, chance = one_level(verifier("multi-round"), P, Q, k)
    assert law == pytest.approx(P.tolist(), abs=1e-9)
    assert chance == pytest.approx(accepted, abs=1e-5)
    assert chance == pytest.approx(one_level(Residual(), P, Q, k)[1])


def test_multi_round_on_distinct_siblings_is_refused() -> None:
    with pytest.raises(PartsClash, match="draws siblings distinct, for which verify part 'multi-round' is not exact"):
        build(Recipe.of("dyspec:path=toy", "multi-round", "temperature:0.9"), ToyModel())


def test_sample_and_match_accepts_what_the_children_cover() -> None:
    """The mass of p on the children that were drawn, on average; and exactly, for a certain tree."""
    _, chance = one_level(verifier("sample-and-match"), P, Q, 1)
    assert chance == pytest.approx(float((P * Q).sum()))
    tree = TokenTree()
    tree.add(0), tree.add(3)
    rows = rows_of(tree, lambda _: P)
    hits = enumerate_law(
        lambda rng: verifier("sample-and-match")(tree, Law(rows.logits, False), rows, rng).path[:1]  # type: ignore[no-any-return]
    )
    assert hits[(0,)] + hits[(1,)] == pytest.approx(0.8)
    assert hits[()] == pytest.approx(0.2)


def test_sample_and_match_equals_residual_on_certain_trees_draw_for_draw() -> None:
    tree = TokenTree.trie([(0, 1, 2), (0, 2), (3,)], 9)
    rows = rows_of(tree, lambda path: P.roll(len(path)))
    for seed in range(1, 40):
        a, b = Seeded(seed), Seeded(seed)
        p = Law(rows.logits, greedy=False)
        assert verifier("sample-and-match")(tree, p, rows, a) == Residual()(tree, p, rows, b)
        assert a.noise() == b.noise(), "both took as many random numbers"


# ---- whole steps -------------------------------------------------------------------------------------------------------


def step(
    draft: str, verify: Verifier, seed: int, length: int, vocab: int = 3
) -> tuple[dict[tuple[int, ...], float], float]:
    """One step of a drafter under a temperature: the law of ``length`` tokens, the definition completing what the step
    left open, and the expected number of accepted drafts."""
    toy = ToyModel(vocab=vocab, seed=seed)
    drafter = part("draft", draft).bind(toy)
    assert isinstance(drafter, Drafter)
    laws = Laws((), greedy=False)

    def once(rng: Chooser) -> tuple[tuple[int, ...], int]:
        session = toy.session(PROMPT)
        drafter.begin(session, laws)
        tree = proposed(drafter, session, Budget(64, length), rng)
        rows = forward(session, tree)
        verdict = verify(tree, laws(rows), rows, rng)
        return tuple(verdict.tokens(tree)), len(verdict.path)

    law: Counter[tuple[int, ...]] = Counter()
    accepted = 0.0
    for (words, taken), weight in enumerate_law(once).items():
        accepted += weight * taken
        for rest, chance in define(toy, words, length).items():
            law[rest] += weight * chance
    return dict(law), accepted


def define(toy: ToyModel, words: tuple[int, ...], length: int) -> dict[tuple[int, ...], float]:
    """The law of ``length`` tokens that begin with ``words``."""
    if len(words) >= length:
        return {words[:length]: 1.0}
    law: Counter[tuple[int, ...]] = Counter()
    for token, chance in enumerate(toy.lm((*PROMPT, *words)).softmax(-1).tolist()):
        for rest, weight in define(toy, (*words, token), length).items():
            law[rest] += chance * weight
    return dict(law)


DEEP = [
    "model:path=toy,length=3",
    "iid:path=toy,width=2,length=2",
    "rsd-c:path=toy,widths=[2,1]",
    "rsd-s:path=toy,width=2,length=2",
    "dyspec:path=toy,nodes=3",
    "dyspec:path=toy,nodes=4,least=0.15,length=2",
    *(f"specdec++:path=toy,min=1,max=3,threshold={threshold}" for threshold in (0, 0.5, 1)),
]


@pytest.mark.parametrize("draft", DEEP)
@pytest.mark.parametrize("verify", ["residual", "sample-and-match", "multi-round", "spectr", "block"])
def test_a_step_with_a_deep_tree_is_exact(draft: str, verify: str, record_property: Any) -> None:
    """Trees of several levels, whose shape depends on what was drawn: the joint law of three tokens."""
    toy, chosen = ToyModel(), Recipe.of(draft, verify, [Temperature(1.0)])
    if verify in ("multi-round", "spectr") and draft.partition(":")[0] not in ("iid", "specdec++"):
        with pytest.raises(PartsClash):  # they are not exact for siblings drawn without replacement
            build(chosen, toy)
        return
    build(chosen, toy)
    law, _ = step(draft, verifier(verify), 1, 3)
    want = define(toy, (), 3)
    assert sum(abs(law[words] - want[words]) for words in want) / 2 < 1e-9
    record_property("exact cases", 1)


def test_a_tree_pruned_by_the_probability_of_its_paths_is_noticed() -> None:
    """The mistake that dyspec, rsd and EAGLE's reranking invite: draw six nodes, keep the likeliest two."""
    toy = ToyModel()

    class Reranked(Residual):
        def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Any:
            def chance(node: int) -> float:
                laws = (toy.companion("").lm((*PROMPT, *tree.words(i)[:-1])).softmax(-1) for i in tree.path(node))
                return math.prod(float(law[tree.tokens[i]]) for law, i in zip(laws, tree.path(node), strict=True))

            kept, at = TokenTree(scheme=tree.scheme), {ROOT: ROOT}
            for node in sorted(sorted(range(len(tree)), key=chance)[-2:]):
                at[node] = kept.add(tree.tokens[node], at[tree.parents[node]], tree.q[node])
            index = [rows.at(node) for node in at if node != ROOT]
            seen = Rows(rows.logits, rows.context, rows.paths, index, rows.prompt)
            verdict = super().__call__(kept, p, seen, rng)
            back = {new: old for old, new in at.items()}
            return verdict._replace(path=tuple(back[node] for node in verdict.path))

    law, _ = step("dyspec:path=toy,nodes=6,length=2", Reranked(), 1, 2)
    want = define(toy, (), 2)
    off = sum(abs(law[words] - want[words]) for words in want) / 2
    print(f"off by {off:.4f}")
    assert off > 0.02


def mean_accepted(draft: str, verify: str, seeds: Sequence[int], length: int = 3) -> list[float]:
    return [step(draft, verifier(verify), seed, length)[1] for seed in seeds]


SEEDS = range(1, 9)


def test_table_block_accepts_at_least_as_much_as_token_by_token() -> None:
    """On chains never less, on most pairs more."""
    gains = []
    for length in (1, 2, 3):
        draft = f"model:path=toy,length={length}"
        token, block = (mean_accepted(draft, name, SEEDS) for name in ("residual", "block"))
        assert all(b >= t - 1e-9 for t, b in zip(token, block, strict=True))
        gains.append(sum(block) / sum(token))
        print(f"chain {length}: token {sum(token) / len(token):.4f}  block {sum(block) / len(block):.4f}")
    assert gains[0] == pytest.approx(1.0)
    assert gains[2] > gains[1] > 1.005


def test_block_on_the_example_of_the_paper() -> None:
    """Two tokens, p = (1/3, 2/3), q = (2/3, 1/3), two drafts: 10/9 accepted token by token, 11/9 in a block."""
    p, q = torch.tensor([1 / 3, 2 / 3]).double(), torch.tensor([2 / 3, 1 / 3]).double()

    def accepted(verify: Verify) -> float:
        def once(rng: Chooser) -> int:
            tree, node = TokenTree(scheme=Scheme.IID), ROOT
            for _ in range(2):
                node = tree.add(rng.pick(q), node, q)
            rows = rows_of(tree, lambda _: p)
            return len(verify(tree, Law(rows.logits, greedy=False), rows, rng).path)

        return sum(n * weight for n, weight in enumerate_law(once).items())

    assert accepted(Residual()) == pytest.approx(10 / 9)
    assert accepted(verifier("block")) == pytest.approx(11 / 9)


def test_table_without_replacement_beats_independent_drafts() -> None:
    """Mean accepted tokens at equal nodes over random toy pairs."""
    print()
    for nodes, seeds, iid, distinct in (
        (2, SEEDS, "iid:path=toy,width=2,length=1", ["rsd-c:path=toy,widths=[2]"]),
        (
            4,
            SEEDS[:3],
            "iid:path=toy,width=2,length=2",
            ["rsd-c:path=toy,widths=[2,1]", "rsd-s:path=toy,width=2,length=2"],
        ),
    ):
        base = {name: mean_accepted(iid, name, seeds) for name in ("multi-round", "spectr", "block")}
        for name, accepted in base.items():
            print(f"{nodes} nodes  {iid:32} {name:12} {sum(accepted) / len(accepted):.4f}")
        for draft in distinct:
            for name in ("residual", "block"):
                accepted = mean_accepted(draft, name, seeds)
                print(f"{nodes} nodes  {draft:32} {name:12} {sum(accepted) / len(accepted):.4f}")
                assert sum(accepted) > sum(base["multi-round"]) + 0.05
                assert sum(accepted) > sum(base["spectr"])


def test_table_a_threshold_accepts_as_much_as_best_first() -> None:
    """DySpec level by level against best-first, at the same mean size: within 15 % (and never better by more)."""

    def seen(draft: str, seed: int) -> tuple[float, float]:
        """Mean size and mean accepted tokens."""
        drafter: Any = part("draft", draft).bind(ToyModel(seed=seed))
        drafter.begin(session := ToyModel(seed=seed).session(PROMPT), Laws((), greedy=False))
        sizes = enumerate_law(lambda rng: len(proposed(drafter, session, Budget(64, 2), rng)))
        return sum(n * weight for n, weight in sizes.items()), step(draft, Residual(), seed, 2)[1]

    for seed in (1, 2):
        size, accepted = seen("dyspec:path=toy,nodes=9,least=0.25", seed)
        below, above = (seen(f"dyspec:path=toy,nodes={int(size) + i}", seed)[1] for i in (0, 1))
        first = below + (above - below) * (size % 1)
        print(f"{size:.2f} nodes  threshold {accepted:.4f}  best-first {first:.4f}")
        assert 0.85 < accepted / first < 1.15


# ---- typical -----------------------------------------------------------------------------------------------------------


def logits_of(seed: int, vocab: int = 5) -> Callable[[tuple[int, ...]], Tensor]:
    model = table(vocab, seed, order=3)
    return lambda path: model(path).softmax(-1)


def test_typical_keeps_the_longest_path_that_is_likely_enough() -> None:
    """By brute force over all paths; and it draws nothing, so it can be given no chooser."""
    lengths: Counter[int] = Counter()
    for seed in range(40):
        p = logits_of(seed)
        tree = TokenTree()
        for parent in (ROOT, ROOT, 0, 0, 1, 2, 3, 5):
            tree.add(len(tree.children(parent)) + seed % 3, parent)
        rows = rows_of(tree, p)
        verdict = Typical(epsilon=0.2, alpha=0.45)(tree, Law(rows.logits, greedy=False), rows, None)  # type: ignore[arg-type]

        def typical(node: int, tree: TokenTree = tree, p: Any = p) -> bool:
            law = p(tree.words(tree.parents[node]))
            bar = min(0.2, 0.45 * math.exp(float((law * law.log()).sum())))
            return float(law[tree.tokens[node]]) > bar

        paths = [tree.path(node) for node in range(len(tree)) if all(map(typical, tree.path(node)))]
        longest = max(map(len, paths), default=0)
        assert len(verdict.path) == longest

        def chance(path: Sequence[int], tree: TokenTree = tree, p: Any = p) -> float:
            return math.prod(float(p(tree.words(tree.parents[n]))[tree.tokens[n]]) for n in path)

        rivals = [path for path in paths if len(path) == longest] or [[]]
        assert list(verdict.path) == max(rivals, key=chance)
        assert verdict.extra == (int(p(tree.words(verdict.path[-1]) if verdict.path else ()).argmax()),)
        lengths[longest] += 1
    assert len(lengths) > 2, "the thresholds decided something"


def test_typical_on_the_figures_of_its_card() -> None:
    """Uniform over eight tokens everything is typical; of (.97, .01, ..) only the likeliest is."""
    flat, sharp = torch.full((8,), 1 / 8).double(), torch.tensor([0.97, 0.01, 0.01, 0.01]).double()
    for p, token, accepted in ((flat, 5, 1), (sharp, 0, 1), (sharp, 1, 0)):
        tree = TokenTree.chain([token])
        rows = rows_of(tree, lambda _, p=p: p)  # type: ignore[misc]
        assert len(Typical()(tree, Law(rows.logits, greedy=False), rows, Seeded(1)).path) == accepted


def test_typical_is_lossy_and_says_so() -> None:
    built = build(Recipe.of("model:path=toy", "typical", "temperature:0.9"), ToyModel())
    assert not built.lossless
    law, _ = step("model:path=toy,length=2", Typical(), 1, 2)
    want = define(ToyModel(), (), 2)
    assert sum(abs(law.get(words, 0.0) - want[words]) for words in want) / 2 > 0.05


def test_typical_is_greedy_under_a_greedy_law() -> None:
    tree = TokenTree.trie([(0, 1, 2), (1, 2), (2, 2)], 9)
    for seed in range(30):
        rows = rows_of(tree, logits_of(seed))
        p = Law(rows.logits, greedy=True)
        assert Typical()(tree, p, rows, Seeded(1)) == verifier("greedy")(tree, p, rows, Seeded(1))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("typical:epsilon=0", "typical needs 0 < epsilon < 1, not 0"),
        ("typical:alpha=1.5", "typical needs 0 < alpha < 1, not 1.5"),
        ("typical:epsilon=-1", "typical needs 0 < epsilon < 1, not -1"),
        ("rapid:eta=-1", "rapid needs eta >= 0, not -1"),
    ],
)
def test_bad_parameters(spec: str, message: str) -> None:
    with pytest.raises(DecoderyError, match=re.escape(message)):
        part("verify", spec)
