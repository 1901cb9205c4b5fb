"""What an entry of the table of roles says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """A role that parts have: all that the recipe, the command line, the bench and the documentation know of it.

    ``base``: the class its parts derive from. ``does``: the methods each of them must define. ``many``: a recipe may name
    several. ``default``: the part where none is named. ``recipe``: it is chosen for each request, so a recipe has an entry
    and the commands an option for it. ``help``, ``flag``: of that option. ``parts``: name -> ``module:Class``. ``of_type``: the
    part that is meant where a Python type stands in place of a spec; the type is its first parameter.
    """

    base: str
    does: tuple[str, ...]
    help: str
    parts: Mapping[str, str]
    many: bool = False
    default: str | None = None
    recipe: bool = True
    flag: str = ""
    of_type: str | None = None
