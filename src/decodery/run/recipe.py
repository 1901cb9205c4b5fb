"""A recipe: which parts decode, as text, as a dictionary, or as objects; the three say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import yaml

from decodery.core.defaults import default_of
from decodery.core.errors import DecoderyError
from decodery.core.part import Part
from decodery.core.roles import Constraint, Drafter, Guide, Search, Verifier
from decodery.core.values import Cap
from decodery.core.written import Written, from_yaml, plain
from decodery.run.registry import ROLES, name_of, nearest
from decodery.run.role import Role
from decodery.run.spec import Spec, describe, part

Specs = Spec | Sequence[Spec] | None


def recipe_roles() -> dict[str, Role]:
    """The roles that a recipe has an entry for."""
    return {name: role for name, role in ROLES.items() if role.recipe}


@dataclass(frozen=True)
class Recipe:
    """The chosen parts by role; ``recipe.draft`` is the part of that role, None where there is none, and a tuple for a role
    of which there may be several (``recipe.guide``).

    ``verify`` None means the exact verifier that fits.
    """

    parts: Mapping[str, tuple[Part, ...]]

    if TYPE_CHECKING:  # __getattr__ gives these and those of every other role; here they are for editors

        @property
        def draft(self) -> Drafter: ...
        @property
        def verify(self) -> Verifier | None: ...
        @property
        def guide(self) -> tuple[Guide, ...]: ...
        @property
        def constrain(self) -> Constraint: ...
        @property
        def search(self) -> Search | None: ...

    def __post_init__(self) -> None:
        for role, parts in self.parts.items():
            for i, one in enumerate(parts):
                if any(type(one) is type(other) for other in parts[:i]) and not getattr(one, "repeats", False):
                    raise DecoderyError(f"the {role} part {name_of(one)[1]!r} is named twice; keep one of them")

    def __getattr__(self, role: str) -> Any:
        if role not in ROLES or not ROLES[role].recipe:
            raise AttributeError(f"a recipe has no {role!r}; it has {', '.join(recipe_roles())}")
        parts = self.parts.get(role, ())
        return parts if ROLES[role].many else next(iter(parts), None)

    @classmethod
    def of(cls, *ordered: Specs, **named: Specs) -> Self:
        """Parts from specs by role; those without a role's name are taken in the order of the table: draft, verify, guide ..."""
        roles = recipe_roles()
        if len(ordered) > len(roles):
            raise DecoderyError(f"a recipe has {len(roles)} entries ({', '.join(roles)}), not {len(ordered)}")
        given = dict(zip(roles, ordered, strict=False))
        for role in named:
            if role not in roles:
                known = f"entries: {', '.join(roles)}.{nearest(role, roles)}"
                raise DecoderyError(f"a recipe has no entry {role!r}; {known}")
            if role in given:
                raise DecoderyError(f"a recipe has one entry {role!r}; it was given twice")
        given |= named
        return cls({name: tuple(_parts(name, role, given.get(name))) for name, role in roles.items()})

    def replace(self, **parts: Specs) -> Self:
        """This recipe with other parts in the roles named."""
        return type(self).of(**{**{role: self._specs(role) for role in recipe_roles()}, **parts})

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; unknown entries are errors."""
        return cls.of(**{str(role): spec for role, spec in entries.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML; what is left at its default is left out."""
        chosen: dict[str, Any] = {}
        for name, role in recipe_roles().items():
            described = [describe(one) for one in self.parts.get(name, ())]
            if described not in ([], [default_of(name, role.default)]):
                chosen[name] = described if role.many else described[0]
        return chosen

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A recipe in YAML or JSON."""
        try:
            entries = from_yaml(text)
        except DecoderyError as error:
            raise DecoderyError(f"the recipe cannot be read: {error}") from error
        if entries is None or entries == "":
            entries = {}
        if not isinstance(entries, Mapping):
            raise DecoderyError(f"a recipe is a mapping such as 'draft: ngram', not {plain(entries)!r}")
        return cls.from_dict(entries)

    def to_text(self) -> str:
        """The recipe in YAML."""
        try:
            return yaml.safe_dump(self.to_dict(), sort_keys=False)
        except yaml.YAMLError as error:
            raise DecoderyError(f"a part of this recipe holds an object that cannot be written: {error}") from error

    @property
    def needs(self) -> frozenset[Cap]:
        """What the model must be able to do for all parts of it, but for those that are left out where they do not fit."""
        inner = () if self.draft.optional else self.draft.whole()
        others = (part for role, parts in self.parts.items() if role != "draft" for part in parts)
        return frozenset[Cap]().union(*(part.needs for part in (*inner, *others)))

    def _specs(self, role: str) -> Specs:
        parts = self.parts.get(role, ())
        return parts if ROLES[role].many else next(iter(parts), None)


def _parts(name: str, role: Role, given: Any) -> Iterator[Part]:
    """The parts of a role from what was given for it; its default where that is nothing."""
    if isinstance(given, Written) and given in ("", "~", "null"):
        given = None
    if given is None:
        given = default_of(name, role.default)
    if given is None:
        return
    if isinstance(given, str) or not isinstance(given, Sequence):
        yield part(name, given)
    elif role.many:
        yield from (part(name, one) for one in given)
    elif given:
        hint = "; draft: mix(ngram,recycling) merges several" if name == "draft" else ""
        raise DecoderyError(f"{name} takes one part, not the list {plain([*given])!r}{hint}")
