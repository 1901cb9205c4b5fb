"""Which parts of a grammar over characters a greedy lexer may read as one, and the grammar in Lark's notation with these.

llguidance reads terminals greedily and never goes back, where a grammar over characters means every way to read a text.
Both are the same if no terminal can go on with a character that may also follow it. So the largest regular expressions
become terminals, those for which that cannot be shown are taken apart, and what is left in the end are single characters,
for which it always holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from decodery.constrain.lib.grammar import Alt, Automaton, Chars, Node, Ref, Rep, Seq, inner, recursive, union

LARGEST = 400
"""Positions of an automaton that is read as one terminal."""


def lark_of(rules: Mapping[str, Node], start: str) -> str:
    """The grammar in Lark's notation. Raises ``ValueError`` where a rule is missing."""
    if start not in rules:
        raise ValueError(f"a grammar needs a rule {start!r}; there are: {', '.join(rules) or 'none'}")
    lexer = _Lexer(dict(rules), recursive(rules))
    while (apart := lexer.conflict(start)) is not None:
        lexer.broken.add(apart)
    return lexer.text(start)


@dataclass
class _Lexer:
    """``broken``: the expressions that are no terminals, though they are regular."""

    rules: dict[str, Node]
    recursive: set[str]
    broken: set[Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        ends = {0, *(end for node in self.rules.values() for end in _ends(node))}
        self._atoms = sorted(ends)
        self._known: dict[Node, Automaton | None] = {}

    def conflict(self, start: str) -> Node | None:
        """A terminal that may go on with what may follow it, or with which another one may; None where there is none."""
        shape = self._shape(start)
        after = self._after(shape, start)
        found = {node: self._sure(node) for node in after}
        for one, a in found.items():
            for other, b in found.items():
                if a.begins() & b.begins() and union(b.reads) & after[one] and a.grows(b) & after[one]:
                    return max((other, one), key=lambda node: (not isinstance(node, Chars), len(found[node].reads)))
        return None

    def text(self, start: str) -> str:
        """The grammar in Lark's notation."""
        shape, names, lines = self._shape(start), dict[Node, str](), []
        rule = {name: f"r{i}" for i, name in enumerate(shape)} | {start: "start"}

        def written(node: Node) -> str:
            if self._terminal(node):
                if not (automaton := self._sure(node)).reads:
                    return '""'
                name = names.setdefault(node, f"T{len(names)}")
                return f"{name}?" if automaton.nullable else name
            match node:
                case Ref(name):
                    return rule[name]
                case Seq(items):
                    return " ".join(map(written, items)) or '""'
                case Alt(items):
                    return f"({' | '.join(map(written, items))})"
                case Rep(item, least, most):
                    return f"({written(item)}){_count(least, most)}"
            raise AssertionError(node)

        for name, node in shape.items():
            lines.append(f"{rule[name]}: {written(node)}")
        for node, name in names.items():
            some = " & /(?s:.+)/" if self._sure(node).nullable else ""
            lines.append(f"{name}: /{self._regex(node)}/{some}")
        return "\n".join(lines) + "\n"

    def _shape(self, start: str) -> dict[str, Node]:
        """The rules that are needed, with neighbours that can be one terminal joined."""
        shape, todo = dict[str, Node](), [start]
        while todo:
            name = todo.pop()
            if name not in shape:
                shape[name] = self._joined(self.rules[name])
                todo += self._needed(shape[name])
        return shape

    def _needed(self, node: Node) -> list[str]:
        if self._terminal(node):
            return []
        return [node.name] if isinstance(node, Ref) else [name for one in inner(node) for name in self._needed(one)]

    def _joined(self, node: Node) -> Node:
        if self._terminal(node):
            return node
        match node:
            case Seq(items) | Alt(items):
                kind, runs = type(node), list[Node]()
                run: list[Node] = []
                for item in (*map(self._joined, items), None):
                    if item is not None and self._terminal(item) and node not in self.broken:
                        run.append(item)
                        continue
                    whole = kind(tuple(run))
                    runs += [whole] if len(run) > 1 and self._terminal(whole) else run
                    run = []
                    if item is not None:
                        runs.append(item)
                return kind(tuple(runs)) if len(runs) != 1 else runs[0]
            case Rep(item, least, most):
                return Rep(self._joined(item), least, most)
        return node

    def _terminal(self, node: Node) -> bool:
        return node not in self.broken and self._automaton(node) is not None

    def _after(self, shape: Mapping[str, Node], start: str) -> dict[Node, int]:
        """For each terminal the characters that may follow it."""
        first = dict.fromkeys(shape, 0)
        empty = dict.fromkeys(shape, False)

        def begin(node: Node) -> tuple[int, bool]:
            """The characters that it may begin with, and whether it may be empty."""
            if self._terminal(node):
                automaton = self._sure(node)
                return automaton.begins(), automaton.nullable
            match node:
                case Ref(name):
                    return first[name], empty[name]
                case Alt(items):
                    found = [begin(item) for item in items]
                    return union(mask for mask, _ in found), any(none for _, none in found)
                case Rep(item, least):
                    mask, none = begin(item)
                    return mask, none or least == 0
                case Seq(items):
                    mask = 0
                    for item in items:
                        more, none = begin(item)
                        mask |= more
                        if not none:
                            return mask, False
                    return mask, True
            raise AssertionError(node)

        while (now := {name: begin(node) for name, node in shape.items()}) != {n: (first[n], empty[n]) for n in shape}:
            first, empty = {n: mask for n, (mask, _) in now.items()}, {n: none for n, (_, none) in now.items()}
        after: dict[Node, int] = {}
        behind = dict.fromkeys(shape, 0)

        def follow(node: Node, mask: int) -> None:
            if self._terminal(node):
                after[node] = after.get(node, 0) | mask
                return
            match node:
                case Ref(name):
                    behind[name] |= mask
                case Alt(items):
                    for item in items:
                        follow(item, mask)
                case Rep(item, _, most):
                    follow(item, mask | (begin(item)[0] if most != 1 else 0))
                case Seq(items):
                    for item in reversed(items):
                        follow(item, mask)
                        more, none = begin(item)
                        mask = more | (mask if none else 0)

        before: object = None
        while before != (now_behind := dict(behind)):
            before = now_behind
            for name, node in shape.items():
                follow(node, behind[name])
        return {node: mask for node, mask in after.items() if self._sure(node).reads}

    def _sure(self, node: Node) -> Automaton:
        """The automaton of a terminal."""
        automaton = self._automaton(node)
        assert automaton is not None
        return automaton

    def _automaton(self, node: Node) -> Automaton | None:
        """None where it is not regular or too large."""
        if node not in self._known:
            self._known[node] = None if isinstance(node, Ref) and node.name in self.recursive else self._made(node)
        return self._known[node]

    def _made(self, node: Node) -> Automaton | None:
        if isinstance(node, Ref):
            return self._automaton(self.rules[node.name])
        if isinstance(node, Chars):
            reads = sum(1 << i for i, atom in enumerate(self._atoms) if any(lo <= atom <= hi for lo, hi in node.ranges))
            return Automaton(False, [0], [0], [reads], [set()])
        parts = [self._automaton(one) for one in inner(node)]
        whole = Automaton(nullable=isinstance(node, Seq))
        for one in parts:
            if one is None or len(whole.reads) + len(one.reads) > LARGEST:
                return None
            shift = len(whole.reads)
            first, last = [p + shift for p in one.first], [p + shift for p in one.last]
            whole.reads += one.reads
            whole.follow += [{p + shift for p in ps} for ps in one.follow]
            if isinstance(node, Seq):
                for p in whole.last:
                    whole.follow[p].update(first)
                whole.first += first if whole.nullable else []
                whole.last = last + (whole.last if one.nullable else [])
                whole.nullable &= one.nullable
            else:
                whole.first, whole.last = whole.first + first, whole.last + last
                whole.nullable |= one.nullable
        if isinstance(node, Rep):
            whole.nullable |= node.least == 0
            if node.most != 1:
                for p in whole.last:
                    whole.follow[p].update(whole.first)
        return whole

    def _regex(self, node: Node) -> str:
        match node:
            case Chars(ranges):
                return "[" + "".join(f"\\x{{{lo:X}}}-\\x{{{hi:X}}}" for lo, hi in ranges) + "]"
            case Seq(items):
                return "".join(map(self._regex, items))
            case Alt(items):
                return f"(?:{'|'.join(map(self._regex, items))})"
            case Rep(item, least, most):
                return f"(?:{self._regex(item)}){_count(least, most)}"
            case Ref(name):
                return self._regex(self.rules[name])
        raise AssertionError(node)


def _ends(node: Node) -> list[int]:
    """Where ranges of characters begin and end, so that those between two such places are alike."""
    if isinstance(node, Chars):
        return [end for low, high in node.ranges for end in (low, high + 1)]
    return [end for one in inner(node) for end in _ends(one)]


def _count(least: int, most: int | None) -> str:
    """How often, as Lark and regular expressions write it."""
    return f"{{{least},{'' if most is None else most}}}"
