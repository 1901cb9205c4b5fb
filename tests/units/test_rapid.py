"""RAPID: the tilted target by the numbers of its paper's formulas, and the retrieval."""

from __future__ import annotations

import pytest
import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.law import Law
from decodery.core.roles import Laws, Verifier
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Rows, Scheme
from decodery.draft.rapid import RapidDraft, shorten
from decodery.guide.temperature import Temperature
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.recipe import Recipe
from decodery.verify.rapid import RapidVerify, remain, tilt
from decodery.verify.residual import Residual

from ..laws.exact import Count, produced, variation, wanted
from ..running import proposed

P = torch.tensor([0.5, 0.05, 0.15, 0.3], dtype=torch.float64)
Q = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
def test_the_tilt_is_a_gradient_step(t: float) -> None:
    z = (P.log() * t).requires_grad_()
    p = (z / t).softmax(-1)
    (gradient,) = torch.autograd.grad(t**2 * (Q * (Q.log() - p.log())).sum(), z)
    moved = ((z.detach() - 5.0 * gradient) / t).softmax(-1)
    assert torch.allclose(tilt(P, Q, 5.0, 0.0), moved, atol=1e-6)


@pytest.mark.parametrize(
    ("eta", "accepted", "distance"), [(0, 0.45, 0.0), (1, 0.5037, 0.0537), (5, 0.9173, 0.55), (20, 0.6, 0.55)]
)
def test_the_emitted_law(eta: float, accepted: float, distance: float) -> None:
    judge = tilt(P, Q, eta, 0.0)
    m = torch.minimum(Q, judge)
    assert torch.allclose(P - m, torch.maximum(P - Q, P - judge), atol=1e-12)
    assert float(m.sum()) == pytest.approx(accepted, abs=1e-4)
    law = m + (1 - m.sum()) * remain(P, Q, judge)
    assert float((law - P).abs().sum() / 2) == pytest.approx(distance, abs=1e-4)
    emitted = enumerate_law(lambda rng: words(RapidVerify(eta=eta, tail=0.0), rng)[0])
    assert [emitted.get(token, 0.0) for token in range(4)] == pytest.approx(law.tolist(), abs=1e-9)


def words(verify: Verifier, rng: Chooser) -> tuple[int, ...]:
    """What one drawn draft of ``Q`` becomes under ``P``."""
    tree = TokenTree(scheme=Scheme.IID)
    tree.add(rng.pick(Q), q=Q)
    logits = P.log().expand(2, -1).clone()
    rows = Rows(logits, (0,), [(), tree.words(0)], [1], 1)
    verdict = verify(tree, Law(logits, greedy=False), rows, rng)
    return (*(tree.tokens[node] for node in verdict.path), *verdict.extra)


def test_without_a_step_it_is_the_residual_rule() -> None:
    for seed in range(200):
        assert words(RapidVerify(eta=0.0), Seeded(seed)) == words(Residual(), Seeded(seed))


def test_without_a_step_the_law_is_the_targets() -> None:
    """Of three tokens, drafted from a short context: drafts are accepted and refused. With a step it is another law."""
    toy, prompt = ToyModel(order=4), (0, 2, 1, 0, 0)
    for eta, exact in ((0.0, True), (5.0, False)):
        draft, count = RapidDraft(length=2, chunk=1, keep=1, query=1), Count()
        built = build(Recipe.of(draft, RapidVerify(eta=eta), [Temperature(0.9)], "none"), toy)
        distance = variation(wanted(toy, built, 3, prompt), produced(toy, built, count, 3, prompt=prompt))
        assert (distance < 1e-9) == exact
        assert count.accepted
        assert count.refused


def test_a_repeated_sibling_may_stand() -> None:
    """What was refused keeps a chance here, and its repetition, a ghost, stands for the node that was forwarded."""
    tree = TokenTree(scheme=Scheme.IID)
    for _ in range(2):
        tree.add(3, q=Q)
    logits = P.log().expand(2, -1).clone()
    rows = Rows(logits, (0,), [(), tree.words(0)], [1, None], 1)
    ends = {RapidVerify(tail=0.0)(tree, Law(logits, greedy=False), rows, Seeded(seed)).path for seed in range(50)}
    assert ends == {(0,)}  # of a second look, what is left of p is more than q


def test_tail() -> None:
    """Unprotected, the step would take tokens 0, 2 and 3 below a tenth of token 1."""
    judge = tilt(P, Q, 20.0, 0.1)
    assert torch.allclose(judge[[0, 2, 3]] / judge[0], P[[0, 2, 3]] / P[0])


def test_retrieval() -> None:
    prompt = [*range(100, 108), 1, 2, 3, 4, *range(200, 208), 1, 2]
    assert shorten(prompt, chunk=4, keep=1, query=2) == [1, 2, 3, 4, 1, 2]
    assert shorten(prompt, chunk=4, keep=5, query=2) == prompt


def test_a_short_prompt_is_read_whole_by_another_model_only() -> None:
    """Its draft's law is that of the whole text; the target itself would do its own work twice."""
    toy, other = ToyModel(), ToyModel().companion("toy")
    for draft, drafts in ((RapidDraft(length=2, path="toy"), 2), (RapidDraft(length=2), 0)):
        built = build(Recipe.of(draft, None, [Temperature(1.0)], "none"), toy)
        session = toy.session((0, 1, 0))
        built.draft.begin(session, Laws(greedy=False))
        tree = proposed(built.draft, session, Budget(2, 2), Seeded(0))
        assert len(tree) == drafts
        for node, q in enumerate(tree.q):
            assert q is not None
            assert torch.allclose(q, other.lm((0, 1, 0, *tree.words(node)[:-1])).softmax(-1))


@pytest.mark.parametrize("bad", [{"length": 0}, {"chunk": 0}, {"keep": 0}, {"query": 0}])
def test_bad_drafter(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="rapid needs"):
        RapidDraft(**bad)


@pytest.mark.parametrize("bad", [{"eta": -1.0}, {"tail": 2.0}])
def test_bad_verifier(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"RapidVerify needs (eta >= 0|0 <= tail <= 1), not"):
        RapidVerify(**bad)
