"""Checks the chosen parts against each other and against what the model can do, and makes them ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decodery.core.errors import DecoderyError, PartsClash
from decodery.core.roles import Constraint, Drafter, Laws, Model, Part, Search, Verifier
from decodery.core.values import LOGITS, Want
from decodery.run.recipe import Recipe
from decodery.run.registry import name_of
from decodery.verify.greedy import Greedy
from decodery.verify.residual import Residual


@dataclass(frozen=True)
class Built:
    """Parts that fit together and know their model."""

    draft: Drafter
    verify: Verifier
    laws: Laws
    constrain: Constraint
    search: Search | None
    want: Want
    lossless: bool


def build(recipe: Recipe, model: Model) -> Built:
    """Bind a recipe to a model. Raises ``PartsClash`` naming the two that do not fit and why."""
    greedy = not any(guide.samples for guide in recipe.guide)
    verify = recipe.verify or (Greedy() if greedy else Residual())
    check(recipe.replace(verify=verify), model)
    try:
        draft, verify, constrain = recipe.draft.bind(model), verify.bind(model), recipe.constrain.bind(model)
        guides = tuple(guide.bind(model) for guide in recipe.guide)
        search = recipe.search and recipe.search.bind(model)
    except DecoderyError:
        raise
    except ValueError as error:
        raise DecoderyError(str(error)) from error
    parts: list[Part] = [*_whole(draft), verify, constrain, *guides, *([search] if search else [])]
    names = [name for guide in guides for name in guide.companions()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PartsClash(f"two guides ask for a companion called {twice!r}; name each guide with a companion once")
    want = LOGITS
    for part in parts:
        want |= part.want
    return Built(draft, verify, Laws(guides, greedy), constrain, search, want, all(part.lossless for part in parts))


def check(recipe: Recipe, model: Model) -> None:
    """Raise ``PartsClash`` unless the parts fit each other and the model."""
    draft, verify, search = recipe.draft, recipe.verify, recipe.search
    greedy = not any(guide.samples for guide in recipe.guide)
    for part in (
        *_whole(draft),
        *recipe.guide,
        recipe.constrain,
        *([verify] if verify else []),
        *([search] if search else []),
    ):
        if lacking := part.needs - model.can:
            raise PartsClash(
                f"{_title(part)} needs a model with {_list(lacking)}, which this one does not offer (see doctor)"
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
    for outer in _whole(draft):
        for inner in outer.inner():
            if not greedy and not inner.emits <= outer.accepts:
                raise PartsClash(
                    f"{_title(inner)} draws siblings {_list(inner.emits - outer.accepts)}, which {_title(outer)} cannot "
                    "merge where tokens are sampled; leave it out, or decode greedily"
                )
    if search is not None:
        if name_of(draft)[1] != "none":
            raise PartsClash(f"{_title(search)} explores without drafts, but {_title(draft)} was chosen; drop one")
        if not greedy:
            sampler = next(guide for guide in recipe.guide if guide.samples)
            raise PartsClash(f"{_title(search)} maximises, but {_title(sampler)} samples; drop one")


def _whole(draft: Drafter) -> Iterator[Drafter]:
    """A drafter and those it is made of."""
    yield draft
    for inner in draft.inner():
        yield from _whole(inner)


def _title(part: Part) -> str:
    role, name = name_of(part)
    return f"{role} part {name!r}" if role else name


def _list(things: frozenset[object]) -> str:
    return " and ".join(sorted(str(getattr(thing, "value", thing)) for thing in things))
