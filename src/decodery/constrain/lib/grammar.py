"""Grammars over characters: expressions of rules, and what of them a finite automaton can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

LAST = 0x10FFFF


@dataclass(frozen=True)
class Chars:
    """One character of these ranges of code points, which are sorted and apart."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Seq:
    """One after another; empty: the empty text."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Alt:
    """One of several."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Rep:
    """Between ``least`` and ``most`` times; None: any number of times."""

    item: Node
    least: int
    most: int | None


@dataclass(frozen=True)
class Ref:
    """What a rule allows."""

    name: str


Node = Chars | Seq | Alt | Rep | Ref


def chars(ranges: Iterable[tuple[int, int]], negated: bool = False) -> Chars:
    """A character of these ranges, or of none of them."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    if negated:
        lows, highs = [0, *(high + 1 for _, high in merged)], [*(low - 1 for low, _ in merged), LAST]
        merged = [(low, high) for low, high in zip(lows, highs, strict=True) if low <= high]
    return Chars(tuple(merged))


def inner(node: Node) -> tuple[Node, ...]:
    """The expressions directly inside one."""
    match node:
        case Seq(items) | Alt(items):
            return items
        case Rep(item):
            return (item,)
    return ()


def refs(node: Node) -> set[str]:
    """The rules that an expression names."""
    return {node.name} if isinstance(node, Ref) else set().union(*map(refs, inner(node)))


def recursive(rules: Mapping[str, Node]) -> set[str]:
    """The rules that lead to themselves, or to one that does. Raises ``ValueError`` where one names a rule that is none."""
    named = {name: refs(node) for name, node in rules.items()}
    for name, others in named.items():
        if missing := others - rules.keys():
            raise ValueError(f"rule {name!r} names {min(missing)!r}, which is no rule")
    plain: set[str] = set()
    while more := {name for name, others in named.items() if name not in plain and others <= plain}:
        plain |= more
    return set(rules) - plain


@dataclass
class Automaton:
    """A regular expression by its positions (Glushkov): each reads a set of characters, given as the bits of a number.

    Counted repetitions are read as uncounted ones, so it takes more words than the expression, never fewer.
    """

    nullable: bool = False
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    follow: list[set[int]] = field(default_factory=list)

    def begins(self) -> int:
        """The characters that a word may begin with."""
        return union(self.reads[p] for p in self.first)

    def grows(self, other: Automaton) -> int:
        """The characters by which a word of this one may go on to the beginning of a word of the other."""
        found, seen = 0, set[tuple[int, int]]()
        todo = [(p, q) for p in self.first for q in other.first]
        last = set(self.last)
        while todo:
            p, q = pair = todo.pop()
            if pair in seen or not self.reads[p] & other.reads[q]:
                continue
            seen.add(pair)
            if p in last:
                found |= union(other.reads[r] for r in other.follow[q])
            todo += [(r, s) for r in self.follow[p] for s in other.follow[q]]
        return found


def union(masks: Iterable[int]) -> int:
    """All the bits."""
    return reduce(int.__or__, masks, 0)
