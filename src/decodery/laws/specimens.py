"""What the laws examine: parts under their specimen parameters, made ready for a toy model."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from decodery.core.errors import DecoderyError, UnknownPart
from decodery.core.part import Part, ready
from decodery.core.roles import Guide
from decodery.guide.temperature import Temperature
from decodery.model.toy import ToyModel
from decodery.run.outside import target_in
from decodery.run.registry import ROLES, find, names, nearest, role_of_class
from decodery.run.spec import part

EXAMINED = ("draft", "verify", "guide", "constrain", "search")
"""The roles that have laws."""
TOYS = {"open": ToyModel(), "ends": ToyModel(seed=4, eos=frozenset({2}))}
"""A model whose answers never end by themselves, and one whose answers do."""
WARM = Temperature(0.9)


class LawBroken(AssertionError):
    """A part does not do what its role promises."""


def claim(holds: object, said: str) -> None:
    """Raise ``LawBroken`` with this sentence unless it holds."""
    if not holds:
        raise LawBroken(said)


class Specimen(NamedTuple):
    """A part to examine: its role, a name that says with which parameters, and the part."""

    role: str
    name: str
    part: Any


def specimens(role: str, outsiders: bool = True) -> Iterator[tuple[str, Any]]:
    """Every part of a role that has a name, under each of its specimen parameters."""
    for name in names(role) if outsiders else ROLES[role].parts:
        for specimen in _of(role, name):
            yield specimen.name, specimen.part


def chosen(text: str) -> list[Specimen]:
    """The specimens that a ``--part`` names: ``ngram``, ``guide/top-p``, ``pkg.mod:Mine``, with parameters of its own or not.

    Raises ``UnknownPart`` or ``DecoderyError`` with what is wrong.
    """
    role, slash, spec = text.partition("/")
    if not slash or role not in EXAMINED:
        role, spec = "", text
    target = target_in(spec)
    name = target or spec.partition(":")[0].partition("(")[0].strip()
    if not role and target:
        role = _role_of(target)
    if not role:
        role = next((one for one in EXAMINED if name in names(one)), "")
    if role not in EXAMINED:
        known = [one for each in EXAMINED for one in names(each)]
        raise UnknownPart(
            f"no part that has laws is called {name!r}; roles with laws: {', '.join(EXAMINED)}.{nearest(name, known)}"
        )
    find(role, name).part  # noqa: B018  (raises unless it is a part of that role)
    return [Specimen(role, spec, part(role, spec))] if spec.strip() != name else list(_of(role, name))


def guide_sets(outsiders: bool = True) -> Iterator[tuple[str, tuple[Guide, ...]]]:
    """No guide, each guide alone, and each that does not sample with a temperature, so that its law is not one-hot."""
    yield "greedy", ()
    yield "temperature:t=0.9", (WARM,)
    for name, guide in specimens("guide", outsiders):
        yield from sets_with(name, guide)


def sets_with(name: str, guide: Guide) -> Iterator[tuple[str, tuple[Guide, ...]]]:
    """A guide alone and, where it does not sample, with a temperature."""
    yield name, (guide,)
    if not guide.samples:
        yield f"{name} + temperature", (guide, WARM)


def bound(one: Part, model: ToyModel) -> Any:
    """The part made ready for a toy; raises ``LawBroken`` where ``bind`` raises anything but what it should."""
    try:
        return ready(one, replace(model, letters=getattr(one, "letters", model.letters)))
    except (DecoderyError, ValueError) as error:
        raise LawBroken(f"{type(one).__name__} cannot be bound to a toy model: {error}") from error
    except Exception as error:
        raise LawBroken(f"{type(one).__name__}.bind raises {type(error).__name__}: {error}") from error


def binding(one: Part) -> None:
    """``bind`` makes a copy ready, any number of times and for any model, and leaves what its user holds as it was."""
    before = repr(one), dict(vars(one))
    for toy in (*TOYS.values(), *TOYS.values()):
        bound(copy.copy(one), toy)
        bound(one, toy)
    claim((repr(one), dict(vars(one))) == before, f"{type(one).__name__} was changed by being bound")


def _role_of(target: str) -> str:
    """The role of the class at ``module:Class``."""
    try:
        kind = pkgutil.resolve_name(target)
    except (ImportError, AttributeError) as error:
        raise UnknownPart(f"{target} cannot be imported: {error}") from error
    if not isinstance(kind, type):
        raise UnknownPart(f"{target} is no class")
    return role_of_class(kind)


def _of(role: str, name: str) -> Iterator[Specimen]:
    for parameters in find(role, name).part.specimens:
        shown = ",".join(
            f"{key}={value}"
            for key, value in parameters.items()
            if isinstance(value, (int, float)) or (isinstance(value, str) and ":" not in value)
        )
        yield Specimen(role, f"{name}:{shown}" if shown else name, part(role, {name: parameters}))
