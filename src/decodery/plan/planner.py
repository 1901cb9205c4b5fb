"""How much to draft: each step's tree is the one that promises most tokens per second.

Works for every drafter with no code in the drafter: what it proposes is cut to its most promising part. A node's promise
is the product of the acceptance rates seen at its places on the way down; a pass of k drafts costs what a forward of that
many tokens costs here. Where nothing pays, nothing is drafted, and the drafter is asked again from time to time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from weakref import WeakKeyDictionary

from decodery.core.plan import OFF, Plan
from decodery.core.roles import Drafter
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Offer, Scheme
from decodery.core.written import amount
from decodery.model.model import Model
from decodery.model.session import Ask
from decodery.plan.acceptance import Forecast, Rates
from decodery.plan.costs import DRIFT, Costs, Curve, calibrated

MARGIN = 1.03
"""By how much drafting must promise to be faster: measured times are noisy, refused drafts leave work behind."""
CURIOUS = 64
"""Passes without drafts after which one is made that pays if drafts cost only ``HOPE`` of what they seem to."""
HOPE = 0.5
CHEAP = 0.01
"""Below this share of a forward, proposing costs nothing worth a pause."""
LONGEST_PAUSE = 32
"""Steps without drafting after which the drafter is asked again, at the latest; one whose proposals are dear rests until
they cost ``CHEAP`` of what was decoded meanwhile."""
BUCKETS = (128, 512, 2048, 8192)
"""Prompts up to each of these lengths share the cost of a forward as real passes correct it."""


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
    """What one request offers the planner, and what it learns from the outcome.

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

    def budget(self, budget: Budget) -> Budget:
        self._asked = self.habits.asked()
        return Budget(min(budget.nodes, self.most), budget.depth) if self._asked else Budget(0, 0)

    def offer(self, tree: TokenTree, seconds: float) -> Offer:
        self._proposed = tree
        return Offer(self.forecast.promises(tree) if _may_cut(tree) else None, self.habits.drafting)

    def fork(self) -> Auto:
        return Auto(self.costs, Forecast(self.forecast.rates), self.habits, self.most)

    def observe(self, step: Step) -> None:
        """Book where the committed tokens went through the proposal, and what asking for it cost and brought."""
        habits = self.habits
        if self._asked:
            drafting, known = step.seconds.get("draft", 0.0), habits.drafting
            habits.drafting += DRIFT * (drafting - known) if known else drafting
            if not _may_cut(self._proposed):
                self._weigh(len(step.tokens), len(step.tree.live()) + 1, step.tree.ripens)
            elif len(step.tree) or self._proposed.keen:
                habits.won()
            else:
                habits.lost(habits.drafting / self.costs(1))
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
        elif ripens > 1:
            # A single tree's loss is meaningless here: every ``ripens`` trees, pause in proportion to their total loss.
            if habits.weighed % ripens == 0:
                habits.lost(ripens * loss)
        elif habits.weighed >= 1 / DRIFT or habits.drafting > plain:  # the dear ones are not tried ten times first
            habits.lost(loss)


@dataclass
class JointPlan:
    """Cuts all trees of a pass together: the most promising nodes of all texts, as many as pay by the measured costs."""

    costs: Costs
    _last: int | None = None

    def cut(self, asks: Sequence[Ask]) -> list[Sequence[int] | None]:
        """For each ask the nodes of its tree to forward; None: all of them."""
        offers = [(i, ask.offer) for i, ask in enumerate(asks) if ask.offer is not None]
        promised = [(i, offer.promise) for i, offer in offers if offer.promise is not None]
        kept: list[list[int] | None] = [None] * len(asks)
        for i, _ in promised:
            kept[i] = []
        whole = sum(len(asks[i].tree.live()) for i, offer in offers if offer.promise is None)
        base, drafting = len(offers) + whole, sum(offer.seconds for _, offer in offers)
        # Parents promise no less than their children and stand before them, so a beginning of this order is a set of trees.
        order = sorted((-chance, i, node) for i, promise in promised for node, chance in enumerate(promise))
        gains = list(accumulate((-negative for negative, _, _ in order), initial=float(len(offers))))
        costs = [self.costs(base + k, self._last) for k in range(len(gains))]
        best = _best(gains, costs, drafting) if base else 0
        self.costs.idle = 0 if best else self.costs.idle + 1
        if base and self.costs.idle > CURIOUS:  # a cost that keeps all drafts away is never corrected
            best = _best(gains, [costs[0] + HOPE * (cost - costs[0]) for cost in costs], drafting)
            self.costs.idle = 0
        for _, i, node in order[:best]:
            nodes = kept[i]
            assert nodes is not None
            nodes.append(node)
        # In the order of the tree, in which a constraint's states stand as well.
        return [None if nodes is None else sorted(nodes) for nodes in kept]

    def observe(self, positions: int, seconds: float, prefill: bool) -> None:
        """Correct the costs by a real pass; one that read a prompt says nothing about steps."""
        if self._last and not prefill:
            self.costs.correct(positions, seconds, self._last)
        self._last = None if prefill else positions


def _best(gains: Sequence[float], costs: Sequence[float], drafting: float) -> int:
    """How many nodes promise most tokens a second; none unless that is more than without, by ``MARGIN``."""
    rates = [gain / (cost + drafting) for gain, cost in zip(gains, costs, strict=True)]
    best = max(range(len(rates)), key=rates.__getitem__)
    return best if rates[best] > MARGIN * gains[0] / costs[0] else 0


def _may_cut(tree: TokenTree) -> bool:
    """Whether the shape of a tree says nothing about drawn tokens, and no node is there for the sake of later steps."""
    return tree.ripens == 1 and (tree.settled or tree.scheme is Scheme.CERTAIN)


@dataclass
class Planner:
    """What the requests of one model teach each other: costs of a forward, acceptance rates and costs of each drafter."""

    measured: Curve | None = None
    costs: dict[tuple[int, int], Costs] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    habits: dict[str, Habits] = field(default_factory=dict)

    def costs_for(self, model: Model, prompt: int, rows: int) -> Costs:
        """The cost of a forward behind prompts of such length, with as many texts in a pass; measured at the first call."""
        if self.measured is None:
            self.measured = calibrated(model)
        bucket = next((size for size in BUCKETS if prompt <= size), BUCKETS[-1])
        return self.costs.setdefault((bucket, rows), Costs(*self.measured))

    def plan_for(self, draft: Drafter, costs: Costs) -> Auto:
        """The plan of one request with this drafter."""
        key = repr(draft)
        forecast = Forecast(self.rates.setdefault(key, Rates()))
        return Auto(costs, forecast, self.habits.setdefault(key, Habits()))


_planners: WeakKeyDictionary[Model, Planner] = WeakKeyDictionary()


def planner_of(model: Model) -> Planner:
    """The planner of a model, which lives as long as the model does."""
    return _planners.setdefault(model, Planner())


def plans(spec: str, model: Model, draft: Drafter, prompts: Sequence[int]) -> tuple[list[Plan], JointPlan | None]:
    """A plan for each of the answers to prompts of these lengths, and what cuts their trees together, if anything does.

    ``spec``: "off", "fixed:N" or "auto". Raises ``DecoderyError`` for anything else.
    """
    kind, nodes = amount(spec)
    if kind == "off":
        return [OFF for _ in prompts], None
    if kind == "fixed":
        return [Fixed(nodes) for _ in prompts], None
    planner = planner_of(model)
    costs = planner.costs_for(model, max(prompts), len(prompts))
    return [planner.plan_for(draft, costs) for _ in prompts], JointPlan(costs)
