"""Every part by role and name. Adding a method: one file and one line here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from decodery.core.errors import UnknownPart
from decodery.core.roles import Part

ROLES: dict[str, dict[str, str]] = {
    "draft": {
        "none": "decodery.draft.none:NoDraft",
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
    "verify": {
        "residual": "decodery.verify.residual:Residual",
        "greedy": "decodery.verify.greedy:Greedy",
        "sample-and-match": "decodery.verify.sample_and_match:SampleAndMatch",
        "multi-round": "decodery.verify.multi_round:MultiRound",
        "spectr": "decodery.verify.spectr:SpecTr",
        "block": "decodery.verify.block:Block",
        "typical": "decodery.verify.typical:Typical",
        "rapid": "decodery.verify.rapid:RapidVerify",
    },
    "guide": {
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
        "processor": "decodery.guide.processor:Processor",
    },
    "constrain": {
        "none": "decodery.constrain.free:Free",
        "choice": "decodery.constrain.choice:Choice",
        "regex": "decodery.constrain.regex:Regex",
    },
    "search": {
        "beam": "decodery.search.beam:Beam",
    },
    "change": {
        "int8": "decodery.change.int8:Int8",
        "layer-speedup": "decodery.change.layer_speedup:LayerSpeedup",
    },
}


@dataclass(frozen=True)
class Entry:
    """A registered part."""

    role: str
    name: str
    target: str

    @property
    def part(self) -> type[Part]:
        """The class, imported now."""
        module, _, attribute = self.target.partition(":")
        part: type[Part] = getattr(import_module(module), attribute)
        return part


def find(role: str, name: str) -> Entry:
    """The part of this name. Raises ``UnknownPart`` with the names there are and the nearest one."""
    if role not in ROLES:
        raise UnknownPart(f"there is no role {role!r}; roles: {', '.join(ROLES)}")
    if name not in ROLES[role]:
        near = difflib.get_close_matches(name, ROLES[role], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPart(f"no {role} part is called {name!r}.{hint} There are: {', '.join(ROLES[role])}")
    return Entry(role, name, ROLES[role][name])


def default(role: str, name: str, **parameters: Any) -> Any:
    """A part by name, for parts that have another one as a default and need not know its file."""
    return find(role, name).part(**parameters)


def entries() -> list[Entry]:
    """All parts, role by role."""
    return [Entry(role, name, target) for role, parts in ROLES.items() for name, target in parts.items()]


def name_of(part: Part) -> tuple[str, str]:
    """Role and name of a part; its class name where it is not registered."""
    target = f"{type(part).__module__}:{type(part).__qualname__}"
    for entry in entries():
        if entry.target == target:
            return entry.role, entry.name
    return "", type(part).__name__
