"""Parameters of parts, checked by pydantic against their type hints: ``k: Annotated[int, Ge(1)] = 50``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from decodery.core.errors import DecoderyError
from decodery.core.hints import bound, readable
from decodery.core.written import listed, mapped, plain

SIGNS = {
    "greater_than_equal": ("ge", ">="),
    "greater_than": ("gt", ">"),
    "less_than_equal": ("le", "<="),
    "less_than": ("lt", "<"),
}
TYPES = {
    "int_type": "int",
    "float_type": "float",
    "bool_type": "bool",
    "string_type": "text",
    "none_required": "none",
    "path_type": "a path",
    "callable_type": "something to call",
    "dict_type": "a mapping such as {name: value}",
}
LONGEST = 200
"""Characters of a value shown in an error."""
LISTS = ("tuple_type", "list_type", "set_type", "frozen_set_type")


class Parameters:
    """The base of parts: their fields are checked when they are made, and they may be read from a spec by pydantic."""

    def __post_init__(self) -> None:
        """Refuse what the type hints forbid; a part with a ``__post_init__`` of its own calls this one first."""
        kind: Any = type(self)
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(kind) if field.init}
        for name, value in checked(kind, values, kind.__name__).items():
            if value is not values[name]:
                setattr(self, name, value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """An instance; or a spec, where the validation's context says how specs are read."""

        def made(value: Any, info: ValidationInfo) -> Any:
            return info.context["part"](cls, value) if info.context else value

        return core_schema.with_info_before_validator_function(made, core_schema.is_instance_schema(cls))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": ["string", "object"], "description": f"a part that is a {cls.__name__}: its spec"}


def checked(
    kind: Any, values: Mapping[str, Any], title: str, part: Callable[[type[Any], Any], Any] | None = None
) -> dict[str, Any]:
    """The values as the hints of ``kind`` want them; ``part`` makes parts of specs.

    Raises ``DecoderyError`` with the part (by its ``title``), the parameter, what it may be, and what came.
    """
    adapters, good = adapters_of(kind), {}
    for name, value in values.items():
        try:
            good[name] = adapters[name].validate_python(value, context={"part": part} if part else None)
        except ValidationError as error:
            raise _explained(title, name, hints_of(kind)[name], value, error) from None
        except RecursionError:
            raise DecoderyError(f"{title}:{name} holds parts within parts too deeply to be read") from None
    return good


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The hints of all parameters. Where one cannot be resolved (a class inside a function) all are taken for ``Any``."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except NameError:
        hints = {}
    return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(kind) if field.init}


@cache
def adapters_of(kind: Any) -> dict[str, TypeAdapter[Any]]:
    """The validator of each parameter."""
    return {name: _adapter(readable(hint)) for name, hint in hints_of(kind).items()}


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a part's parameters; an entry is empty where a parameter takes objects that JSON cannot hold."""
    properties = {}
    for field in dataclasses.fields(kind):
        if field.init:
            try:
                properties[field.name] = adapters_of(kind)[field.name].json_schema()
            except PydanticUserError:
                properties[field.name] = {}
            if field.default is not dataclasses.MISSING:
                properties[field.name]["default"] = plain_value(field.default)
    required = [name for name in properties if not has_default(kind, name)]
    return {
        "title": kind.__name__,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def has_default(kind: Any, name: str) -> bool:
    """Whether a parameter may be left out."""
    field = kind.__dataclass_fields__[name]
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def default_of(kind: Any, name: str) -> str:
    """A parameter's default for people."""
    field = kind.__dataclass_fields__[name]
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return repr(field.default) if has_default(kind, name) else "required"


def plain_value(value: Any) -> Any:
    """Tuples as lists, which is what JSON and YAML have."""
    return [plain_value(item) for item in value] if isinstance(value, tuple) else value


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass or model brings a configuration of its own
        return TypeAdapter(hint)


def _explained(title: str, name: str, hint: Any, value: Any, error: ValidationError) -> DecoderyError:
    """One sentence about the error that says most."""
    errors = error.errors()
    # A list whose items were all refused counts as too short as well.
    errors = [one for one in errors if one["type"] != "too_short"] or errors
    for one in errors:  # a part inside this one was refused: that says it best
        if isinstance(cause := one.get("ctx", {}).get("error"), DecoderyError):
            return cause
    for one in errors:
        where, came = f"{name}{_place(value, one['loc'])}", _brief(one["input"])
        if one["type"] in SIGNS:
            key, sign = SIGNS[one["type"]]
            marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
            limits = (where == name and bound(name, marks)) or f"{where} {sign} {one['ctx'][key]:g}"
            return DecoderyError(f"{title} needs {limits}, not {came}")
        if one["type"] == "finite_number":
            return DecoderyError(f"{title} needs a finite {where}, not {came}")
        if one["type"] in ("too_short", "string_too_short"):
            return DecoderyError(f"{title}: {where} must not be empty")
        if one["type"] == "value_error":
            return DecoderyError(f"{title}: {where}: {one['ctx']['error']}")
    if choice := next((one["ctx"]["expected"] for one in errors if one["type"] == "literal_error"), ""):
        rest = [_type(one) for one in errors if one["type"] != "literal_error"]
        return DecoderyError(
            f"{title} needs {name}={' or '.join([*rest, choice.replace(chr(39), '')])}, not {_brief(value)}"
        )
    wanted = " or ".join(dict.fromkeys(_type(one) for one in errors))
    came = errors[0]["input"]
    hint_ = " (write it in quotes)" if wanted == "text" and isinstance(came, (int, float)) else ""
    return DecoderyError(f"{title}:{name} must be {wanted}, not {_brief(came)}{hint_}")


def _brief(value: Any) -> str:
    """What came, cut where it is long."""
    text = repr(plain(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _type(error: ErrorDetails) -> str:
    """What would have been right."""
    if error["type"] == "is_instance_of":
        return str(error["ctx"]["class"])
    if error["type"] in LISTS:
        return "a list such as [a,b]"
    return TYPES.get(error["type"], error["msg"].removeprefix("Input should be "))


def _place(value: Any, loc: Sequence[Any]) -> str:
    """``[0]["a"]``: where in a list or a mapping; pydantic's names for the members of a union are left out."""
    value, text = listed(mapped(value)), ""
    for step in loc:
        if isinstance(value, (list, tuple, Mapping)):
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                continue
            text += f"[{plain(step)!r}]"
    return text
