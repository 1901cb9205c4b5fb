"""Type hints of parameters: as pydantic should read them, and as people should."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MinLen
from pydantic import AllowInfNan, BeforeValidator, Field, InstanceOf, Strict

from decodery.core.written import Written, listed, mapped, plain, ranged, resolved


def readable(hint: Any) -> Any:
    """A hint as pydantic should read it: strict about types, but taking what was ``Written`` for what the type makes of it."""
    inner, marks = hint, ()
    if typing.get_origin(hint) is Annotated:
        inner, *rest = typing.get_args(hint)
        marks = tuple(rest)
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    if inner is float:
        return Annotated[(float, Strict(), AllowInfNan(False), *marks, BeforeValidator(_number))]
    if inner in (int, bool):
        return Annotated[(inner, Strict(), *marks, BeforeValidator(_number))]
    if inner in (None, types.NoneType, Any):
        return Annotated[(inner, *marks, BeforeValidator(resolved))]
    if inner is object:  # such as the path of a model, which may be an object as well
        return Annotated[(Any, *marks, BeforeValidator(plain))]
    if inner is str:
        return Annotated[(str, Strict(), *marks)]
    if origin is Literal and not all(isinstance(one, str) for one in arguments):
        return Annotated[(inner, *marks, BeforeValidator(resolved))]
    if origin in (typing.Union, types.UnionType):
        members: Any = tuple(readable(one) for one in arguments)
        either: Any = typing.Union[members]  # noqa: UP007
        return Annotated[(either, Field(union_mode="left_to_right"), *marks)]
    if origin in (tuple, list, set, frozenset, Sequence):
        of_integers = any(one is int or typing.get_args(one)[:1] == (int,) for one in arguments)
        whole = origin[tuple(one if one is ... else readable(one) for one in arguments)]
        before = [BeforeValidator(ranged)] if of_integers else []
        return Annotated[(whole, *marks, *before, BeforeValidator(listed))]
    if origin in (dict, Mapping):
        key, entry = (readable(one) for one in arguments)
        whole = origin[Annotated[key, BeforeValidator(_key)], entry]
        return Annotated[(whole, *marks, BeforeValidator(mapped))]
    if dataclasses.is_dataclass(inner) and not hasattr(inner, "__get_pydantic_core_schema__"):
        one = typing.cast(Any, InstanceOf)[inner]  # else pydantic would make one of any mapping
        return Annotated[(one, *marks)] if marks else one
    return hint


def kind_and_range(hint: Any, name: str) -> tuple[str, str]:
    """A hint for people in two parts: ``int`` and ``k >= 1``."""
    inner, *marks = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    return shown(inner), bound(name, marks)


def shown(hint: Any, name: str = "") -> str:
    """A hint for people: ``int, k >= 1``."""
    if typing.get_origin(hint) is Annotated:
        return ", ".join(filter(None, kind_and_range(hint, name or "it")))
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(shown(one) for one in typing.get_args(hint))
    if arguments := typing.get_args(hint):
        origin: Any = typing.get_origin(hint)
        return f"{origin.__name__}[{', '.join('...' if one is ... else shown(one) for one in arguments)}]"
    return "None" if hint is types.NoneType else getattr(hint, "__name__", str(hint))


def bound(name: str, marks: Sequence[Any]) -> str:
    """The bounds among the marks of a hint: ``0 <= p <= 1``."""
    marks = [one for mark in marks for one in (mark if isinstance(mark, GroupedMetadata) else [mark])]
    low = next((f"{m.ge} <= " if isinstance(m, Ge) else f"{m.gt} < " for m in marks if isinstance(m, (Ge, Gt))), "")
    high = next((f" <= {m.le}" if isinstance(m, Le) else f" < {m.lt}" for m in marks if isinstance(m, (Le, Lt))), "")
    if low and not high:
        number, sign = low.split()
        return f"{name} {'>=' if sign == '<=' else '>'} {number}"
    if not low and not high:
        return "not empty" if any(isinstance(mark, MinLen) for mark in marks) else ""
    return f"{low}{name}{high}"


def _number(value: Any) -> Any:
    """Numbers of other libraries as Python's."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else resolved(value)


def _key(value: Any) -> Any:
    """JSON writes all keys as text."""
    return Written(value) if isinstance(value, str) else value
