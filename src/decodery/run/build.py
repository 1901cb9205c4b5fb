"""Checks the chosen parts against each other and against what the model can do, and makes them ready."""

from __future__ import annotations

from typing import TypeVar

from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.part import Model, Part, ready
from decodery.core.roles import Built, Drafter, Laws, Verifier
from decodery.core.values import LOGITS, Scheme
from decodery.run.recipe import Recipe
from decodery.run.registry import name_of
from decodery.verify.greedy import Greedy
from decodery.verify.residual import Residual
from decodery.verify.sample_and_match import SampleAndMatch

P = TypeVar("P", bound=Part)


def build(recipe: Recipe, model: Model) -> Built:
    """Bind a recipe to a model. Raises ``PartsClash`` naming the two that do not fit and why."""
    greedy = not any(guide.samples for guide in recipe.guide)
    verify = recipe.verify or _fitting(recipe.draft, greedy)
    try:
        check(recipe.replace(verify=verify), model)
    except PartsClash:
        if not recipe.draft.optional:
            raise
        return build(recipe.replace(draft="none"), model)
    draft, verify, constrain = _bound(recipe.draft, model), _bound(verify, model), _bound(recipe.constrain, model)
    guides = tuple(_bound(guide, model) for guide in recipe.guide)
    search = recipe.search and _bound(recipe.search, model)
    parts: list[Part] = [*draft.whole(), verify, constrain, *guides, *([search] if search else [])]
    want = LOGITS
    for part in parts:
        want |= part.want
    laws = Laws(guides, greedy, constrain=constrain)
    return Built(draft, verify, laws, constrain, search, want, all(part.lossless for part in parts))


def _fitting(draft: Drafter, greedy: bool) -> Verifier:
    """The exact verifier for what this drafter emits; of certain trees none accepts more than ``sample-and-match``, under
    which a seed gives the same answer whatever is drafted."""
    if greedy:
        return Greedy()
    return SampleAndMatch() if draft.emits <= {Scheme.CERTAIN} else Residual()


def _bound(part: P, model: Model) -> P:
    """``ready``, with errors that name the part."""
    try:
        return ready(part, model)
    except DecoderyError:
        raise
    except ValueError as error:
        raise DecoderyError(f"{_title(part)}: {error}") from error


def check(recipe: Recipe, model: Model) -> None:
    """Raise ``PartsClash`` unless the parts fit each other and the model."""
    draft, verify, search = recipe.draft, recipe.verify, recipe.search
    greedy = not any(guide.samples for guide in recipe.guide)
    for part in (
        *draft.whole(),
        *recipe.guide,
        recipe.constrain,
        *([verify] if verify else []),
        *([search] if search else []),
    ):
        if lacking := part.needs - model.can:
            reason = "; ".join(sorted({model.missing[cap] for cap in lacking}))
            raise PartsClash(
                f"{_title(part)} needs a model with {_list(lacking)}, which this one does not offer: {reason}"
            )
    if verify is not None:
        if not draft.emits <= verify.accepts:
            raise PartsClash(
                f"{_title(draft)} draws siblings {_list(draft.emits - verify.accepts)}, for which {_title(verify)} is "
                "not exact; use verify=residual"
            )
        if verify.greedy_only and not greedy:
            sampler = next(guide for guide in recipe.guide if guide.samples)
            raise PartsClash(
                f"{_title(verify)} is for greedy decoding, but {_title(sampler)} samples; use verify=residual"
            )
    for outer in draft.whole():
        for inner in outer.inner():
            if not greedy and not inner.emits <= outer.accepts:
                raise PartsClash(
                    f"{_title(inner)} draws siblings {_list(inner.emits - outer.accepts)}, which {_title(outer)} cannot "
                    "merge where tokens are sampled; leave it out, or decode greedily"
                )
    if search is not None:
        if not search.drafts and draft.emits:
            raise PartsClash(f"{_title(search)} explores without drafts, but {_title(draft)} was chosen; drop one")
        if search.samples is False and not greedy:
            sampler = next(guide for guide in recipe.guide if guide.samples)
            raise PartsClash(f"{_title(search)} maximises, but {_title(sampler)} samples; drop one")
        if search.samples and greedy:
            raise PartsClash(f"{_title(search)} draws its candidates: add a guide that samples, e.g. temperature:0.8")


def _title(part: Part) -> str:
    role, name = name_of(part)
    return f"{role} part {name!r}" if role else name


def _list(things: frozenset[object]) -> str:
    return " and ".join(sorted(str(getattr(thing, "value", thing)) for thing in things))
