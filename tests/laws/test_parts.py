"""Figures that papers print of single verifiers, and the enumeration itself: it could fail. General laws: decodery.laws."""

from __future__ import annotations

from collections import Counter
from threading import Thread
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decodery.core.chooser import Chooser, Scripted, Seeded, enumerate_law
from decodery.core.law import Law
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Rows, Scheme, Tensor
from decodery.verify.greedy import Greedy
from decodery.verify.residual import Residual

from .exact import specimens

VERIFIERS: dict[str, Any] = dict(specimens("verify"))


def rows_of(tree: TokenTree, logits: list[Tensor]) -> Rows:
    live = tree.live()
    index = [live.index(i) + 1 if i in live else None for i in range(len(tree))]
    return Rows(torch.stack(logits[: len(live) + 1]), (0,), [(), *(tree.words(i) for i in live)], index, 1)


# ---- verifiers ---------------------------------------------------------------------------------------------------------

P = torch.tensor([0.5, 0.05, 0.15, 0.3], dtype=torch.float64)
Q = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)


def siblings(k: int, replace: bool, rng: Chooser, q: Tensor = Q, told: Tensor | None = None) -> TokenTree:
    """k children of the root drawn from q; ``told``: the law the tree claims they were drawn from."""
    tree = TokenTree(scheme=Scheme.IID if replace else Scheme.DISTINCT)
    for _ in range(k):
        if not float(q.sum()) > 0:
            break
        q = q / q.sum()
        tree.add(token := rng.pick(q), q=q if told is None else told)
        if not replace:
            q = q.index_fill(0, torch.tensor(token), 0.0)
    return tree


def outcome(p: Tensor, k: int, replace: bool, **drawn: Any) -> tuple[dict[int, float], float]:
    """The law of the next token, and how likely it came from the draft."""
    fate: Counter[tuple[int, bool]] = Counter()

    def once(rng: Chooser) -> tuple[int, bool]:
        tree = siblings(k, replace, rng, **drawn)
        rows = rows_of(tree, [p.log()] * (k + 1))
        verdict = Residual()(tree, Law(rows.logits, greedy=False), rows, rng)
        return verdict.tokens(tree)[0], bool(verdict.path)

    fate.update(enumerate_law(once))
    law: Counter[int] = Counter()
    for (token, _), weight in fate.items():
        law[token] += weight
    return dict(law), sum(weight for (_, accepted), weight in fate.items() if accepted)


def distance(law: dict[int, float], p: Tensor) -> float:
    return sum(abs(law.get(token, 0.0) - chance) for token, chance in enumerate(p.tolist())) / 2


@pytest.mark.parametrize(
    ("k", "replace", "accepted"),
    [(1, True, 0.45), (2, True, 0.655), (3, True, 0.6895), (1, False, 0.45), (2, False, 0.7375), (3, False, 0.85417)],
)
def test_residual_on_the_reference_vectors(k: int, replace: bool, accepted: float) -> None:
    """The published acceptance of multi-round and recursive rejection, and always the target's law."""
    law, chance = outcome(P, k, replace)
    assert distance(law, P) < 1e-9
    assert chance == pytest.approx(accepted, abs=1e-5)


def test_disjoint_and_certain_targets() -> None:
    for k, replace, accepted in ((1, True, 0.5), (2, True, 0.75), (2, False, 1.0)):
        law, chance = outcome(torch.tensor([1.0, 0.0]).double(), k, replace, q=torch.tensor([0.5, 0.5]).double())
        assert law[0] == pytest.approx(1.0)
        assert chance == pytest.approx(accepted)


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.permutations(range(5)))
def test_distinct_siblings_cover_what_the_draft_covers(logits: list[float], order: list[int]) -> None:
    """All tokens that q can draw are drawn, and p has no other: one of them is accepted for certain."""
    p, q = torch.zeros(2, 5, dtype=torch.float64)
    p[order[:2]], q[order[:2]] = torch.tensor(logits, dtype=torch.float64).view(2, 2).softmax(-1)
    law, chance = outcome(p, 2, replace=False, q=q)
    assert distance(law, p) < 1e-9
    assert chance == pytest.approx(1.0)
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], dtype=torch.float64)
    assert outcome(p, 3, replace=False, q=q)[1] == pytest.approx(1.0)
    assert outcome(p, 2, replace=False, q=q)[1] < 0.95


def test_a_draw_from_p_after_a_refusal_is_noticed() -> None:
    """The third classic mistake: not from the residual."""

    def once(rng: Chooser) -> int:
        tree = siblings(1, True, rng)
        rows = rows_of(tree, [P.log()] * 2)
        verdict = Residual()(tree, p := Law(rows.logits, greedy=False), rows, rng)
        return tree.tokens[0] if verdict.path else rng.pick(p.row(0))  # type: ignore[arg-type]

    assert distance(enumerate_law(once), P) == pytest.approx(0.125, abs=1e-3)


@pytest.mark.parametrize(
    ("drawn", "error"),
    [
        ({"q": torch.eye(4).double()[1], "told": Q}, 0.20),  # drafted by argmax, verified with the soft law
        ({"replace": False, "told": Q}, 0.225),  # drawn without replacement, verified as if with
    ],
)
def test_a_wrong_account_of_q_is_noticed(drawn: dict[str, Any], error: float) -> None:
    """The enumeration sees the classic mistakes: it could fail."""
    told = {"k": 1 if "q" in drawn else 2, "replace": True} | drawn
    law, _ = outcome(P, **told)
    assert distance(law, P) == pytest.approx(error, abs=5e-3)


@given(st.data())
def test_greedy_equals_residual(data: Any) -> None:
    """On greedy laws the fast path and the residual rule agree on every tree, drawn or certain, ghosts included."""
    tree = TokenTree()
    certain = data.draw(st.booleans())
    for i in range(data.draw(st.integers(0, 7))):
        q = (
            None
            if certain
            else torch.softmax(torch.tensor(data.draw(st.lists(st.floats(-2, 2), min_size=4, max_size=4))), 0)
        )
        tree.add(data.draw(st.integers(0, 3)), data.draw(st.integers(ROOT, i - 1)), q)
    logits = [torch.tensor(data.draw(st.permutations([0.0, 1.0, 2.0, 3.0]))) for _ in range(len(tree) + 1)]
    rows = rows_of(tree, logits)
    p = Law(rows.logits, greedy=True)
    fast, slow = Greedy()(tree, p, rows, Seeded(1)), Residual()(tree, p, rows, Seeded(1))
    assert fast == slow


@pytest.mark.parametrize("name", ["residual", "multi-round", "block"])
def test_rounding_never_accepts_a_ghost(name: str) -> None:
    """q a hair above p everywhere: the first draw may be refused, and its repetition must be refused as well."""

    class Unlucky(Seeded):
        flips = 0

        def flip(self, a: float) -> bool:
            self.flips += 1
            return self.flips > 1

    tree = TokenTree(scheme=Scheme.IID)
    for _ in range(2):
        tree.add(1, q=P * (1 + 1e-7))
    rows = rows_of(tree, [P.log()] * 2)
    verdict = VERIFIERS[name](tree, Law(rows.logits, greedy=False), rows, Unlucky(3))
    assert verdict.path == ()
    assert verdict.extra[0] != 1


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_dead_row_ends_the_verdict(name: str) -> None:
    verify = VERIFIERS[name]
    tree = TokenTree.chain([1])
    rows = rows_of(tree, [torch.tensor([0.0, 1.0]), torch.full((2,), -torch.inf)])
    verdict = verify(tree, Law(rows.logits, greedy=True), rows, Seeded(0))
    assert (verdict.path, verdict.extra) == ((0,), ())


# ---- choices ---------------------------------------------------------------------------------------------------------


def test_scripted_choices_cover_every_branch() -> None:
    """The enumerator itself: weights sum to one and every outcome comes."""

    def once(rng: Chooser) -> tuple[int, bool, int]:
        first = rng.pick(torch.tensor([0.2, 0.0, 0.8]))
        return first, rng.flip(0.25), rng.pick(torch.tensor([0.5, 0.5])) if first else 9

    law = enumerate_law(once)
    assert sum(law.values()) == pytest.approx(1.0)
    assert law[0, True, 9] == pytest.approx(0.2 * 0.25)
    assert len(law) == 6
    assert Scripted({(0,): (2, 0.8)}).pick(torch.tensor([0.2, 0.0, 0.8])) == 2


def test_forked_choices_are_enumerated_whoever_is_first() -> None:
    """Beside each other in a thread, one after the other, or with nobody waiting for the fork: the same law."""
    thirds = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)

    def once(rng: Chooser, wait: bool, threaded: bool) -> tuple[int, ...]:
        taken: list[int] = []
        fork = rng.fork()
        beside = Thread(target=lambda: taken.extend(fork.pick(thirds) for _ in range(2)))
        run = beside.start if threaded else beside.run
        run()
        own = rng.pick(torch.tensor([0.25, 0.75], dtype=torch.float64))
        if threaded and wait:
            beside.join()
        return (own, *taken) if wait else (own,)

    for threaded in (False, True):
        law = enumerate_law(lambda rng, threaded=threaded: once(rng, True, threaded))  # type: ignore[misc]
        assert len(law) == 18
        assert law[1, 2, 0] == pytest.approx(0.75 / 9, abs=1e-12)
        law = enumerate_law(lambda rng, threaded=threaded: once(rng, False, threaded))  # type: ignore[misc]
        assert law == {(0,): pytest.approx(0.25, abs=1e-12), (1,): pytest.approx(0.75, abs=1e-12)}


def test_a_fork_repeats_and_takes_nothing_from_its_chooser() -> None:
    p = torch.full((1000,), 0.001)
    a, b, alone = Seeded(7), Seeded(7), Seeded(7)
    fork, twin = a.fork(), b.fork()
    first = [fork.pick(p) for _ in range(5)], [a.pick(p) for _ in range(5)]
    again = [b.pick(p) for _ in range(5)], [twin.pick(p) for _ in range(5)]
    assert first == again[::-1]
    assert first[1] == [alone.pick(p) for _ in range(5)]
    assert first[0] != first[1] != [a.fork().pick(p) for _ in range(5)]


def test_seeded_never_picks_the_impossible() -> None:
    rng = Seeded(0)
    p = torch.tensor([0.0, 1e-30, 0.0, 1.0, 0.0])
    assert {rng.pick(p) for _ in range(2000)} == {3}
    counts = Counter(rng.pick(torch.tensor([1.0, 0.0, 3.0])) for _ in range(8000))
    assert counts[1] == 0
    assert abs(counts[2] / 8000 - 0.75) < 0.02
