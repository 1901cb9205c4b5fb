"""How much to draft: each step's tree is the one that promises most tokens per second.

Works for every drafter with no code in the drafter: what it proposes is cut to its most promising part. A node's promise
is the product of the acceptance rates seen at its places on the way down; a step of k drafts costs what a forward of
k + 1 tokens costs here. Where nothing pays, nothing is drafted, and the drafter is asked again from time to time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from decodery.errors import DecoderyError
from decodery.tree import ROOT, TokenTree
from decodery.words import Budget, Scheme, Step

RATE = 0.1
"""Weight of a new observation in the running averages; the first ones weigh more."""
LONGEST_PAUSE = 32
"""Steps without drafting after which the drafter is asked again, at the latest."""


class Plan:
    """Draws the line nowhere: all that a drafter proposes is forwarded."""

    def budget(self, budget: Budget) -> Budget:
        """What the drafter may propose, given what can still be used."""
        return budget

    def cut(self, tree: TokenTree) -> TokenTree:
        """The part of a proposal to forward."""
        return tree

    def observe(self, step: Step) -> None:
        """Learn from a step."""


OFF = Plan()


@dataclass
class Fixed(Plan):
    """At most ``nodes`` draft nodes a step."""

    nodes: int

    def budget(self, budget: Budget) -> Budget:
        return Budget(min(budget.nodes, self.nodes), budget.depth)


@dataclass
class Auto(Plan):
    """Maximises expected tokens per second from measured costs and observed acceptance.

    ``cost``: tokens in a forward -> seconds, for a few sizes; refreshed from real steps. Acceptance is kept for each place:
    depth and rank among siblings. Cutting by place never looks at drawn tokens, so it leaves every law exact; a sibling
    goes only with all drawn after it. Where the places themselves depended on draws (a drawn tree that is not settled) the
    tree is forwarded whole, and what such trees brought so far decides whether the drafter is asked again.
    """

    cost: Mapping[int, float]
    most: int = 64
    _seen: dict[tuple[int, int], float] = field(default_factory=dict)
    _times: Counter[tuple[int, int]] = field(default_factory=Counter)
    _drafting: float = 0.0
    _gain: float = 0.0
    _size: float = 0.0
    _weighed: int = 0
    _proposed: TokenTree = field(default_factory=TokenTree)
    _asked: bool = False
    _pause: int = 0
    _rest: int = 1

    def __post_init__(self) -> None:
        self.cost = dict(sorted(self.cost.items()))

    def budget(self, budget: Budget) -> Budget:
        self._asked = self._pause == 0
        self._pause = max(0, self._pause - 1)
        return Budget(min(budget.nodes, self.most), budget.depth) if self._asked else Budget(0, 0)

    def cut(self, tree: TokenTree) -> TokenTree:
        self._proposed = tree
        if not _may_cut(tree):
            return tree
        promise = self.promises(tree)
        order = sorted(range(len(tree)), key=lambda node: -promise[node])
        gains = list(accumulate((promise[node] for node in order), initial=1.0))
        rates = [gain / (self.seconds(k + 1) + self._drafting) for k, gain in enumerate(gains)]
        best = max(range(len(rates)), key=rates.__getitem__)
        if self._asked and len(tree) and rates[best] <= 1 / self.seconds(1):
            best, self._pause, self._rest = 0, self._rest, min(2 * self._rest, LONGEST_PAUSE)
        elif best:
            self._rest = 1
        return tree.only(order[:best])

    def observe(self, step: Step) -> None:
        """Book where the committed tokens went through the proposal, forwarded or not, and what the step cost."""
        if self._asked:
            drafting = step.seconds.get("draft", 0.0)
            self._drafting += RATE * (drafting - self._drafting) if self._drafting else drafting
        n = len(step.tree.live()) + 1
        if "forward" in step.seconds and len(step.rows) == n and n in self.cost:
            known = dict(self.cost)
            known[n] += RATE * (min(step.seconds["forward"], 4 * known[n]) - known[n])
            self.cost = known
        if self._asked and not _may_cut(step.tree):
            self._weigh(len(step.tokens), n)
        node = ROOT
        for token in step.tokens:
            children = self._proposed.children(node)
            for rank, child in enumerate(children):
                place = self._proposed.depths[child], rank
                hit = float(self._proposed.tokens[child] == token)
                self._times[place] += 1
                weight = max(RATE, 1 / (1 + self._times[place]))
                self._seen[place] = self._chance(place) + weight * (hit - self._chance(place))
            node = next((child for child in children if self._proposed.tokens[child] == token), len(self._proposed))

    def _weigh(self, tokens: int, n: int) -> None:
        """Book what a tree brought that is forwarded whole, and pause where such trees lose on average."""
        self._weighed += 1
        weight = max(RATE, 1 / self._weighed)
        self._gain += weight * (tokens - self._gain)
        self._size += weight * (n - self._size)
        if self._weighed < 1 / RATE or self._gain / (
            self.seconds(round(self._size)) + self._drafting
        ) > 1 / self.seconds(1):
            self._rest = 1
        else:
            self._pause, self._rest = self._rest, min(2 * self._rest, LONGEST_PAUSE)

    def promises(self, tree: TokenTree) -> list[float]:
        """The chance of each node to be accepted; none is above its parent's, nor above that of the sibling before."""
        promise: list[float] = []
        rank: dict[int, int] = defaultdict(int)
        before: dict[int, float] = {}
        for node, parent in enumerate(tree.parents):
            above = 1.0 if parent == ROOT else promise[parent]
            chance = above * self._chance((tree.depths[node], rank[parent]))
            promise.append(min(chance, before.get(parent, 1.0)))
            before[parent] = promise[node]
            rank[parent] += 1
        return promise

    def seconds(self, n: int) -> float:
        """The cost of a forward of ``n`` tokens: straight lines between and beyond the sizes measured."""
        sizes: Sequence[int] = list(self.cost)
        if n in self.cost:
            return self.cost[n]
        high = next((i for i, size in enumerate(sizes) if size > n), len(sizes) - 1)
        high = max(high, 1)
        a, b = sizes[high - 1], sizes[high]
        return self.cost[a] + (self.cost[b] - self.cost[a]) * (n - a) / (b - a)

    def _chance(self, place: tuple[int, int]) -> float:
        """Seen, or a guess for places never reached: less for each later sibling."""
        return self._seen.get(place, 0.4 / (1 + place[1]))


def _may_cut(tree: TokenTree) -> bool:
    """Whether the shape of a tree says nothing about drawn tokens."""
    return tree.settled or tree.scheme is Scheme.CERTAIN


def plan_of(spec: str, cost: Mapping[int, float] | None = None) -> Plan:
    """``"off"``, ``"fixed:N"`` or ``"auto"`` (which needs ``cost``)."""
    kind, _, number = spec.partition(":")
    if kind == "off" and not number:
        return OFF
    if kind == "fixed" and number.isdigit():
        return Fixed(int(number))
    if kind == "auto" and not number and cost:
        return Auto(cost)
    raise DecoderyError(f"plan is auto, fixed:N (N draft nodes at most) or off, not {spec!r}")
