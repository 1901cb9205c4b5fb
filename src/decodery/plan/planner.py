"""How much to draft: each step's tree is the one that promises most tokens per second.

Works for every drafter with no code in the drafter: what it proposes is cut to its most promising part. A node's promise
is the product of the acceptance rates seen at its places on the way down; a step of k drafts costs what a forward of
k + 1 tokens costs here. Where nothing pays, nothing is drafted, and the drafter is asked again from time to time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

from decodery.core.errors import DecoderyError
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.plan.acceptance import Forecast
from decodery.plan.costs import Costs

DRIFT = 0.1
"""Weight of a new observation in the averages of time."""
MARGIN = 1.03
"""By how much drafting must promise to be faster: measured times are noisy, refused drafts leave work behind."""
CHEAP = 0.01
"""Below this share of a forward, proposing costs nothing worth a pause."""
LONGEST_PAUSE = 32
"""Steps without drafting after which the drafter is asked again, at the latest; one whose proposals are dear rests until
they cost ``CHEAP`` of what was decoded meanwhile."""


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
class Habits:
    """What asking a drafter costs and brings, and how long it rests while that does not pay.

    ``drafting``: seconds of a proposal; ``gain``, ``size``: tokens and forwarded nodes of a step whose tree must not be cut.
    """

    drafting: float = 0.0
    gain: float = 0.0
    size: float = 0.0
    weighed: int = 0
    pause: int = 0
    losses: int = 0

    def asked(self) -> bool:
        """Whether the drafter is asked in this step."""
        self.pause = max(0, self.pause - 1)
        return self.pause == 0

    def lost(self, share: float) -> None:
        """Asking did not pay and cost ``share`` of a plain step: rest, ever longer."""
        if share > CHEAP:
            rest = max(1.0, share) * 4.0**self.losses
            self.pause = 1 + round(min(rest, max(LONGEST_PAUSE, share / CHEAP)))
            self.losses = min(self.losses + 1, 8)

    def won(self) -> None:
        """Asking paid."""
        self.losses = 0


@dataclass
class Auto(Plan):
    """Maximises expected tokens per second from measured costs and observed acceptance.

    Every proposal is judged by what was committed after it, forwarded or not, so a drafter that was cut to nothing is heard
    again as soon as its guesses come true. One whose proposals cost time is asked ever more rarely while they do not pay.
    Cutting by place never looks at drawn tokens, so it leaves every law exact; a drawn sibling goes only with those after it.
    Where the places themselves depended on draws (a drawn tree that is not settled), or trees pay later (``ripens``), the
    tree is forwarded whole, and what such trees brought so far decides whether the drafter is asked again. ``costs`` and
    ``habits`` may be shared between requests.
    """

    costs: Costs
    forecast: Forecast = field(default_factory=Forecast)
    habits: Habits = field(default_factory=Habits)
    most: int = 64
    _proposed: TokenTree = field(default_factory=TokenTree)
    _asked: bool = False
    _last: int | None = None

    def budget(self, budget: Budget) -> Budget:
        self._asked = self.habits.asked()
        return Budget(min(budget.nodes, self.most), budget.depth) if self._asked else Budget(0, 0)

    def cut(self, tree: TokenTree) -> TokenTree:
        self._proposed = tree
        if not _may_cut(tree):
            return tree
        promise = self.forecast.promises(tree)
        order = sorted(range(len(tree)), key=lambda node: -promise[node])
        gains = list(accumulate((promise[node] for node in order), initial=1.0))
        rates = [gain / (self.costs(k + 1, self._last) + self.habits.drafting) for k, gain in enumerate(gains)]
        best = max(range(len(rates)), key=rates.__getitem__)
        if self._asked and rates[best] <= MARGIN / self.costs(1, self._last):
            best = 0
            self.habits.lost(self.habits.drafting / self.costs(1))
        elif best:
            self.habits.won()
        return tree.only(order[:best])

    def observe(self, step: Step) -> None:
        """Book where the committed tokens went through the proposal, and what the step cost."""
        if self._asked:
            drafting, known = step.seconds.get("draft", 0.0), self.habits.drafting
            self.habits.drafting += DRIFT * (drafting - known) if known else drafting
        n = len(step.tree.live()) + 1
        if self._last and "forward" in step.seconds and len(step.rows) == n:  # the first had the prompt to read as well
            self.costs.correct(n, step.seconds["forward"], self._last)
        self._last = n
        if self._asked and not _may_cut(step.tree):
            self._weigh(len(step.tokens), n, step.tree.ripens)
        self.forecast.learn(self._proposed, step.tokens)

    def _weigh(self, tokens: int, n: int, ripens: int) -> None:
        """Book what a tree brought that is forwarded whole, and pause where such trees lose on average."""
        habits, plain = self.habits, self.costs(1)
        habits.weighed += 1
        weight = max(DRIFT, 1 / habits.weighed)
        habits.gain += weight * (tokens - habits.gain)
        habits.size += weight * (n - habits.size)
        loss = (self.costs(round(habits.size)) + habits.drafting) / plain - habits.gain
        if loss < 0:
            habits.won()
        elif ripens > 1:  # what single ones lose says nothing: judged after so many, the rest is for the loss of all
            if habits.weighed % ripens == 0:
                habits.lost(ripens * loss)
        elif habits.weighed >= 1 / DRIFT or habits.drafting > plain:  # the dear ones are not tried ten times first
            habits.lost(loss)


def _may_cut(tree: TokenTree) -> bool:
    """Whether the shape of a tree says nothing about drawn tokens, and no node is there for the sake of later steps."""
    return tree.ripens == 1 and (tree.settled or tree.scheme is Scheme.CERTAIN)


def plan_of(spec: str) -> Plan | None:
    """``"off"`` or ``"fixed:N"``; None for ``"auto"``, which needs to know the model's costs."""
    kind, _, number = spec.partition(":")
    if kind == "off" and not number:
        return OFF
    if kind == "fixed" and number.isdigit():
        return Fixed(int(number))
    if spec == "auto":
        return None
    raise DecoderyError(f"plan is auto, fixed:N (N draft nodes at most) or off, not {spec!r}")
