"""The table of roles, and every part by role and name. Adding a method: one file and one line here.

What the table names is imported when it is asked for. Parts from outside the package have names too, see ``outside.py``.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from decodery.core.errors import UnknownPart
from decodery.run.outside import declared, examined, target_in, target_of
from decodery.run.role import Role as Role

if TYPE_CHECKING:
    from decodery.core.part import Part


ROLES: dict[str, Role] = {
    "draft": Role(
        base="decodery.core.roles:Drafter",
        does=("propose|proposing",),
        help="Drafter, e.g. recycling or ngram:max=4,width=3; none: plain decoding.",
        default="auto",
        flag="-d",
        parts={
            "none": "decodery.draft.none:NoDraft",
            "auto": "decodery.draft.auto:Auto",
            "ngram": "decodery.draft.ngram:NGram",
            "recycling": "decodery.draft.recycling:Recycling",
            "model": "decodery.draft.model:ModelDraft",
            "jacobi": "decodery.draft.jacobi:Jacobi",
            "speculative-jacobi": "decodery.draft.speculative_jacobi:SpeculativeJacobi",
            "lookahead": "decodery.draft.lookahead:Lookahead",
            "copyspec": "decodery.draft.copyspec:CopySpec",
            "suffix": "decodery.draft.suffix:Suffix",
            "aded": "decodery.draft.aded:Aded",
            "datastore": "decodery.draft.datastore:Datastore",
            "schema": "decodery.draft.schema:Schema",
            "mix": "decodery.draft.mix:Mix",
            "iid": "decodery.draft.iid:IidPaths",
            "rsd-c": "decodery.draft.rsd_c:RsdC",
            "rsd-s": "decodery.draft.rsd_s:RsdS",
            "dyspec": "decodery.draft.dyspec:DySpec",
            "specdec++": "decodery.draft.specdec_plus_plus:SpecDecPlusPlus",
            "pearl": "decodery.draft.pearl:Pearl",
            "layer-skip": "decodery.draft.layer_skip:LayerSkip",
            "del": "decodery.draft.dynamic_exit:DynamicExit",
            "swift": "decodery.draft.swift:Swift",
            "rasd": "decodery.draft.rasd:Rasd",
            "cascade": "decodery.draft.cascade:Cascade",
            "easyspec": "decodery.draft.easyspec:EasySpec",
            "rapid": "decodery.draft.rapid:RapidDraft",
        },
    ),
    "verify": Role(
        base="decodery.core.roles:Verifier",
        does=("__call__",),
        help="Verifier; by default the exact one that fits.",
        parts={
            "residual": "decodery.verify.residual:Residual",
            "greedy": "decodery.verify.greedy:Greedy",
            "sample-and-match": "decodery.verify.sample_and_match:SampleAndMatch",
            "multi-round": "decodery.verify.multi_round:MultiRound",
            "spectr": "decodery.verify.spectr:SpecTr",
            "block": "decodery.verify.block:Block",
            "typical": "decodery.verify.typical:Typical",
            "rapid": "decodery.verify.rapid:RapidVerify",
        },
    ),
    "guide": Role(
        base="decodery.core.roles:Guide",
        does=("__call__",),
        help="Guide, e.g. top-p:0.9; may be given several times.",
        many=True,
        flag="-g",
        parts={
            "temperature": "decodery.guide.temperature:Temperature",
            "top-k": "decodery.guide.top_k:TopK",
            "top-p": "decodery.guide.top_p:TopP",
            "min-p": "decodery.guide.min_p:MinP",
            "typical-p": "decodery.guide.typical_p:TypicalP",
            "repetition": "decodery.guide.repetition:Repetition",
            "presence": "decodery.guide.presence:Presence",
            "frequency": "decodery.guide.frequency:Frequency",
            "no-repeat-ngram": "decodery.guide.no_repeat_ngram:NoRepeatNGram",
            "logit-bias": "decodery.guide.logit_bias:LogitBias",
            "min-new-tokens": "decodery.guide.min_new_tokens:MinNewTokens",
            "cfg": "decodery.guide.cfg:ClassifierFree",
            "dola": "decodery.guide.dola:Dola",
            "processor": "decodery.guide.processor:Processor",
        },
    ),
    "constrain": Role(
        base="decodery.core.roles:Constraint",
        does=("advance", "mask"),
        help="Constraint, e.g. json:object, json-schema:FILE or choice:[yes,no].",
        default="none",
        of_type="json-schema",
        parts={
            "none": "decodery.constrain.free:Free",
            "choice": "decodery.constrain.choice:Choice",
            "regex": "decodery.constrain.regex:Regex",
            "json": "decodery.constrain.json:Json",
            "json-schema": "decodery.constrain.json_schema:JsonSchema",
            "lark": "decodery.constrain.lark:Lark",
            "gbnf": "decodery.constrain.gbnf:Gbnf",
            "tool": "decodery.constrain.tool:ToolCalls",
            "substring": "decodery.constrain.substring:Substring",
            "all": "decodery.constrain.all:All",
            "check": "decodery.constrain.check:Check",
            "python": "decodery.constrain.python:Python",
            "sql": "decodery.constrain.sql:Sql",
            "span": "decodery.constrain.span:Span",
            "once": "decodery.constrain.once:Once",
        },
    ),
    "search": Role(
        base="decodery.core.roles:Search",
        does=("__call__",),
        help="Search, e.g. beam:width=4.",
        parts={
            "beam": "decodery.search.beam:Beam",
            "best-of-n": "decodery.search.best_of_n:BestOfN",
            "first-finish": "decodery.search.first_finish:FirstFinish",
            "smc": "decodery.search.smc:Smc",
            "asap": "decodery.search.asap:Asap",
            "exact": "decodery.search.exact:Exact",
        },
    ),
    "change": Role(
        base="decodery.model.change:Change",
        does=("network|__call__",),
        help="Make another model of it, e.g. int8 or layer-speedup:2; may be given several times.",
        many=True,
        recipe=False,
        parts={
            "int4": "decodery.change.int4:Int4",
            "int8": "decodery.change.int8:Int8",
            "layer-speedup": "decodery.change.layer_speedup:LayerSpeedup",
        },
    ),
}


@dataclass(frozen=True)
class Entry:
    """A part that can be named. ``outside``: it is not one of the table above."""

    role: str
    name: str
    target: str
    outside: bool = False

    @property
    def part(self) -> type[Part]:
        """The class, imported now. Raises ``UnknownPart`` where an outside one is not there or is no part of the role."""
        role = ROLES[self.role]
        if self.outside:
            kind: type[Part] = examined(self.role, role.base, role.does, self.target, _bases())
        else:
            module, _, attribute = self.target.partition(":")
            kind = getattr(import_module(module), attribute)
        return kind


def role_of(role: str) -> Role:
    """The entry of the table. Raises ``UnknownPart`` with the roles there are."""
    if role not in ROLES:
        raise UnknownPart(f"there is no role {role!r}; roles: {', '.join(ROLES)}{nearest(role, ROLES)}")
    return ROLES[role]


def names(role: str) -> dict[str, str]:
    """Name -> ``module:Class`` of all parts of a role: those of the table, then those that distributions declare."""
    return {**role_of(role).parts, **_declared().get(role, {})}


def find(role: str, name: str) -> Entry:
    """The part of this name, or of this ``module:Class``; ``UnknownPart`` tells the names there are and the nearest one."""
    known = names(role)
    if name in known:
        return Entry(role, name, known[name], outside=name not in ROLES[role].parts)
    if target_in(name):
        return Entry(role, name, name, outside=True)
    raise UnknownPart(f"no {role} part is called {name!r}.{nearest(name, known)} There are: {', '.join(known)}")


def entries(outsiders: bool = True) -> list[Entry]:
    """All parts, role by role; with those that distributions declare, unless told otherwise."""
    return [
        Entry(role, name, target, outside=name not in ROLES[role].parts)
        for role in ROLES
        for name, target in names(role).items()
        if outsiders or name in ROLES[role].parts
    ]


def name_of(part: Part) -> tuple[str, str]:
    """Role and name of a part. The name of one that is not registered is its ``module:Class``, by which ``find`` gives it
    back; or its class name alone where it was made inside a function and cannot be found again."""
    kind = type(part)
    target = target_of(kind)
    for entry in entries():
        if entry.target == target:
            return entry.role, entry.name
    role = next((role for base in kind.__mro__ if (role := _bases().get(target_of(base)))), "")
    return role, kind.__name__ if "<locals>" in target else target


def role_of_class(kind: type) -> str:
    """The role that parts of this class have. Raises ``UnknownPart`` where it is none."""
    for base in kind.__mro__:
        if role := _bases().get(target_of(base)):
            return role
    raise UnknownPart(f"{kind.__name__} is no part of any role: {', '.join(ROLES)}")


def made(role: str, name: str, /, **parameters: Any) -> Any:
    """A part by name."""
    return find(role, name).part(**parameters)


def default(name: str, role: str = "draft", /, **parameters: Any) -> Any:
    """A dataclass field whose default is a part by name, made when it is needed: one part need not import another."""
    return dataclasses.field(default_factory=lambda: made(role, name, **parameters))


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the known name that is most like this one; empty where none is."""
    near = difflib.get_close_matches(name, [*known], 1)
    return f" Did you mean {near[0]!r}?" if near else ""


@cache
def _bases() -> dict[str, str]:
    """The class that a role's parts derive from -> the role."""
    return {role.base: name for name, role in ROLES.items()}


@cache
def _declared() -> dict[str, dict[str, str]]:
    """What installed distributions declare, by role."""
    return declared({name: role.parts for name, role in ROLES.items()})
