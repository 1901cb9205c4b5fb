"""Parts from outside the package: found by name, and looked at before they are used.

They come in two ways. A distribution declares them in the entry-point group ``decodery.parts``, for example
``"draft/mine" = "pkg.mod:Mine"``; or a spec names the class itself, ``pkg.mod:Mine``. Both import that module, so specs may
only come from whoever may run code here.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from decodery.core.errors import UnknownPart

GROUP = "decodery.parts"
TARGET = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?=$|[\s:(])")
log = logging.getLogger(__name__)


def target_in(text: str) -> str:
    """The ``module:Class`` that a spec begins with; empty where it begins with none.

    A module without a dot is one only if it is there to be imported: so ``regx:abc`` stays a misspelt name.
    """
    match = TARGET.match(text)
    return match[0] if match and ("." in match[1] or _there(match[1])) else ""


def target_of(kind: type) -> str:
    """The ``module:Class`` of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def declared(roles: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """What installed distributions declare, by role and name.

    An entry point that names none of the ``roles``, or a name in use, is logged and left out.
    """
    found: dict[str, dict[str, str]] = {}
    for point in entry_points(group=GROUP):
        role, _, name = point.name.replace(":", "/", 1).partition("/")
        if role not in roles or not name:
            log.warning("the entry point %r of %s is left out: it must be called ROLE/NAME", point.name, GROUP)
        elif name in roles[role] or name in found.get(role, {}):
            log.warning("the entry point %r of %s is left out: there is such a part already", point.name, GROUP)
        else:
            found.setdefault(role, {})[name] = f"{point.module}:{point.attr}"
    return found


def function_at(target: str) -> Callable[..., Any]:
    """The function at ``python:module:function``. Raises ``UnknownPart`` where it is none."""
    prefix, _, rest = target.partition(":")
    if prefix != "python" or rest.count(":") != 1:
        raise UnknownPart(f"a function is named by python:module:function, not by {target!r}")
    found = _imported(rest, f"the function {rest}")
    if not callable(found):
        raise UnknownPart(f"{rest} is no function but {type(found).__name__}")
    return cast(Callable[..., Any], found)


def examined(role: str, base: str, does: Sequence[str], target: str, bases: Mapping[str, str]) -> Any:
    """The class at ``target``, if it is a part of the role: it derives from ``base`` and defines the methods ``does``.

    A method such as ``propose|proposing`` is there where one of the two is. ``bases``: the base class of each role -> the
    role. Raises ``UnknownPart`` with what is wrong.
    """
    found = _imported(target, f"the {role} part {target}")
    home = _imported(base, base)
    if not isinstance(found, type) or not issubclass(found, home):
        other = next((bases[name] for kind in getattr(found, "__mro__", ()) if (name := target_of(kind)) in bases), "")
        known = f"it is a {other} part" if other else f"a {role} part derives from {base.replace(':', '.')}"
        raise UnknownPart(f"{target} is no {role} part: {known}")
    if "__dataclass_fields__" not in vars(found):
        raise UnknownPart(f"{target} declares no parameters: put @dataclass above the class")
    for method in does:
        if all(getattr(found, name) is getattr(home, name) for name in method.split("|")):
            raise UnknownPart(f"{target} is no {role} part yet: it does not define {' or '.join(method.split('|'))}")
    return found


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # such as __main__ of an interactive session
        return False


def _imported(target: str, told: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found: Any = import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise UnknownPart(f"{told} cannot be imported: {error}") from error
    return found
