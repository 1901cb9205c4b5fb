"""The options of ``decode`` and ``stream``, typed; and the recipe that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from decodery.core.errors import DecoderyError
from decodery.model.session import Session
from decodery.run.recipe import Recipe, recipe_roles
from decodery.run.registry import nearest
from decodery.run.spec import Spec


class ChatOptions(TypedDict, total=False):
    """What the chat template is given beside the messages, as ``apply_chat_template`` of transformers takes it."""

    tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None
    documents: Sequence[Mapping[str, Any]] | None
    continue_final_message: bool | str
    template: Mapping[str, Any] | None


class Options(ChatOptions, total=False):
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
    progress: Callable[[int, int], None] | None


def template_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat template is given; empty where nothing is. Raises ``DecoderyError`` for values of another type."""
    tools, documents, goes_on = (options.get(name) for name in ("tools", "documents", "continue_final_message"))
    given = dict(_mapping(options.get("template")))
    if twice := sorted(given.keys() & ChatOptions.__annotations__.keys()):
        raise DecoderyError(f"template= may not hold {', '.join(twice)}: give it as an argument of its own")
    if tools is not None:
        given["tools"] = _listed("tools", tools, "JSON schemas or functions", callable)
    if documents is not None:
        given["documents"] = _listed("documents", documents, "mappings such as {'title': ..., 'text': ...}")
    if goes_on is not None and not isinstance(goes_on, (bool, str)):
        raise DecoderyError(f"continue_final_message= is True, False or the name of a field, not {goes_on!r:.60}")
    return given | ({"continue_final_message": goes_on} if goes_on else {})


def _mapping(template: Any) -> Mapping[str, Any]:
    if template is None:
        return {}
    if not isinstance(template, Mapping) or not all(isinstance(name, str) for name in template):
        raise DecoderyError(f"template= is a mapping such as {{'enable_thinking': False}}, not {template!r:.60}")
    return template


def _listed(name: str, values: Any, told: str, also: Callable[[Any], bool] = lambda _: False) -> list[Any]:
    """The values as a list."""
    if not isinstance(values, Sequence) or not values or not all(isinstance(v, Mapping) or also(v) for v in values):
        raise DecoderyError(f"{name}= is a list of {told}, not {values!r:.60}")
    return list(values)


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


@dataclass(frozen=True)
class Request:
    """When to stop and what to report; the other half of a call beside the recipe."""

    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    time_limit: float | None = None
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    plan: str = "off"
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise DecoderyError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.time_limit is not None and not self.time_limit >= 0:  # also refuses NaN
            raise DecoderyError(f"time_limit is a number of seconds, 0 or more, not {self.time_limit}")
        if self.seed is not None and self.seed < 0:
            raise DecoderyError(f"seed must be 0 or more, not {self.seed}; without one, each run is different")
        if self.progress is not None and not callable(self.progress):
            raise DecoderyError(f"progress= is a function of (tokens read, tokens in all), not {self.progress!r:.60}")
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise DecoderyError(f"stop takes non-empty texts and token ids, not {list(self.stop)!r}")
