"""The options of ``decode`` and ``stream``, typed; and the recipe that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from decodery.core.errors import DecoderyError
from decodery.model.session import Session
from decodery.run.recipe import Recipe, recipe_roles
from decodery.run.registry import nearest
from decodery.run.spec import Spec


class Options(TypedDict, total=False):
    """What ``decode`` takes beside model, prompt and ``n``: ``**options: Unpack[Options]``."""

    draft: Spec | None
    verify: Spec | None
    guide: Spec | Sequence[Spec] | None
    constrain: Spec | None
    search: Spec | None
    recipe: Recipe | None
    max_new_tokens: int
    stop: str | int | Sequence[str | int]
    time_limit: float | None
    ignore_eos: bool
    seed: int | None
    sampling: Literal["model"] | None
    logprobs: int | None
    session: Session | None
    plan: str


def recipe_from(options: Mapping[str, Any]) -> Recipe:
    """The recipe among the options, or the one that the options of the roles make.

    Raises ``DecoderyError`` where both are given, and where an option is none; None counts as not given.
    """
    known = {*Options.__annotations__, *recipe_roles(), "n"}
    for name in options:
        if name not in known:
            raise DecoderyError(
                f"there is no option {name!r}; options: {', '.join(sorted(known))}.{nearest(name, known)}"
            )
    named = {role: options[role] for role in recipe_roles() if options.get(role) is not None}
    recipe = options.get("recipe")
    if recipe is None:
        return Recipe.of(**named)
    if named:
        given = " and ".join(f"{role}=" for role in named)
        raise DecoderyError(f"recipe= already names all parts; leave out {given}, or recipe=")
    if not isinstance(recipe, Recipe):
        raise DecoderyError(f"recipe= takes a decodery.Recipe, e.g. Recipe.from_text('draft: ngram'), not {recipe!r}")
    return recipe
