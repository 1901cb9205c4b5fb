"""What the loop asks of a plan: how much to draft."""

from __future__ import annotations

from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Offer


class Plan:
    """No limit: every proposed node is forwarded."""

    def budget(self, budget: Budget) -> Budget:
        """What the drafter may propose, given what can still be used."""
        return budget

    def offer(self, tree: TokenTree, seconds: float) -> Offer | None:
        """What the planner must know to cut this tree, which took so many seconds; None: it must be forwarded whole."""
        return None

    def fork(self) -> Plan:
        """The plan of another answer that goes on from here."""
        return self

    def observe(self, step: Step) -> None:
        """Learn from a step."""


OFF = Plan()
