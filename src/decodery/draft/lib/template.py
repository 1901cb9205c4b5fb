"""Templates: trees of fixed shape as rank paths; named ones, complete ones, and files that ``decodery fit-tree`` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from decodery.core.errors import BadTemplate, UnknownPart
from decodery.core.files import write_whole

RankPath = tuple[int, ...]
Template = tuple[RankPath, ...]
"""Rank paths, parents first: (0, 2) is the third guess after the first guess."""

FORMAT = 1
LARGEST = 4096
"""Most nodes of a template: more could not be forwarded at once."""
DEEPEST = 64
"""Most levels of a complete template."""


def _template(*levels: dict[Any, int]) -> Template:
    """Rank paths from how many children each path has, level by level."""
    return tuple((*path, rank) for level in levels for path, children in level.items() for rank in range(children))


TEMPLATES: dict[str, Template] = {
    # For CPUs, where a forward of 16 rows costs a few times one of 4: about the 15 likeliest of the published tree.
    "small": _template(
        {(): 4},
        {(0,): 3, (1,): 1, (2,): 1},
        {(0, 0): 2, (0, 1): 1},
        {(0, 0, 0): 1, (0, 0, 1): 1},
        {(0, 0, 0, 0): 1},
    ),
    # The authors' tree "2.2.2": 80 nodes, 6 levels.
    "published": _template(
        {(): 8},
        {(rank,): children for rank, children in enumerate((8, 4, 3, 2, 1, 1, 1, 1))},
        {(0, 0): 8, (0, 1): 3, (0, 2): 2, **{(0, rank): 1 for rank in range(3, 8)}}
        | {(1, 0): 2, (1, 1): 1, (2, 0): 1, (3, 0): 1, (4, 0): 1, (5, 0): 1},
        {(0, 0, 0): 5, (0, 0, 1): 2, (0, 0, 2): 1, (0, 0, 3): 1, (0, 0, 4): 1, (0, 1, 0): 1, (0, 2, 0): 1}
        | {(1, 0, 0): 1, (2, 0, 0): 1, (3, 0, 0): 1},
        {(0, 0, 0, 0): 3, (0, 0, 0, 1): 1, (0, 0, 0, 2): 1, (0, 0, 1, 0): 1, (0, 1, 0, 0): 1, (1, 0, 0, 0): 1},
        {(0, 0, 0, 0, 0): 2, (0, 0, 0, 1, 0): 1},
    ),
}


def template_of(spec: str, k: int) -> Template:
    """The template that ``spec`` names: "small", "published", "RxD" (all paths of R ranks, D levels deep) or a JSON file.

    ``k``: how many guesses there are after a token. The named ones just lose the ranks beyond it; others are refused.
    Raises ``UnknownPart`` where nothing is so called, ``BadTemplate`` where it is no template.
    """
    if spec in TEMPLATES:
        return TEMPLATES[spec]
    if size := re.fullmatch(r"(\d{1,4})x(\d{1,4})", spec):
        return checked(_complete(int(size[1]), int(size[2])), k, f"the template {spec}")
    if not spec.endswith(".json"):
        known = ", ".join(TEMPLATES)
        raise UnknownPart(f"there is no template {spec!r}; there are: {known}, RANKSxDEPTH such as 3x4, and FILE.json")
    return checked(_read(Path(spec)), k, f"the template {spec}")


def checked(paths: object, k: int, name: str) -> Template:
    """``paths`` as a template. Raises ``BadTemplate`` unless each is a list of ranks below ``k``, once, after its parent."""
    if not isinstance(paths, Sequence) or isinstance(paths, str) or not paths:
        raise BadTemplate(f"{name} is empty or no list: it needs rank paths, such as [[0], [1], [0, 0]]")
    if len(paths) > LARGEST:
        raise BadTemplate(f"{name} has {len(paths)} nodes; {LARGEST} are possible")
    seen: dict[RankPath, None] = {}
    for number, path in enumerate(paths, 1):
        here = f"{name}, node {number}"
        if not isinstance(path, Sequence) or not path or not all(type(rank) is int for rank in path):
            raise BadTemplate(f"{here}: a rank path is a list of whole numbers such as [0, 2], not {str(path)[:60]}")
        if wrong := [rank for rank in path if not 0 <= rank < k]:
            raise BadTemplate(f"{here}: rank {str(wrong[0])[:20]} is none of the {k} guesses 0 to {k - 1}; give k=")
        if (place := tuple(path)) in seen:
            raise BadTemplate(f"{here}: the path {list(path)} is there twice")
        if len(place) > 1 and place[:-1] not in seen:
            raise BadTemplate(f"{here}: the parent {list(place[:-1])} of {list(path)} must stand before it")
        seen[place] = None
    return tuple(seen)


def write(path: Path, template: Template, notes: Mapping[str, Any]) -> None:
    """Write a template as JSON, whole or not at all, in place of what was there; ``notes`` say where it is from."""
    writable(path)
    try:
        write_whole(path, json.dumps({"format": FORMAT, **notes, "template": template}) + "\n")
    except OSError as error:
        raise BadTemplate(f"the template is not written: {error}") from error


def writable(path: Path) -> None:
    """Raise ``BadTemplate`` where no template can be written or found again."""
    if path.suffix != ".json":
        raise BadTemplate(f"the name of a template ends in .json; {path} does not")
    if path.is_dir() or not path.absolute().parent.is_dir():
        wrong = "it is a folder" if path.is_dir() else f"there is no folder {path.absolute().parent}"
        raise BadTemplate(f"cannot write the template {path}: {wrong}")


def _complete(ranks: int, depth: int) -> Template:
    if sum(ranks**level for level in range(1, min(depth, DEEPEST) + 1)) > LARGEST or depth > DEEPEST:
        raise BadTemplate(
            f"a template of {ranks} ranks and {depth} levels is too large (at most {LARGEST} nodes); ask for less"
        )
    return tuple(path for level in range(1, depth + 1) for path in product(range(ranks), repeat=level))


def _read(path: Path) -> object:
    try:
        held = json.loads(path.expanduser().read_text(encoding="utf-8"))
        form, paths = held["format"], held["template"]
    except OSError as error:
        raise BadTemplate(f"cannot read the template {path}: {error.strerror}; decodery fit-tree writes one") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadTemplate(f"{path} is no template that decodery fit-tree wrote ({error!r})") from error
    if form != FORMAT:
        raise BadTemplate(
            f"{path} is a template of format {str(form)[:20]}, this Decodery reads {FORMAT}: fit it again"
        )
    return paths
