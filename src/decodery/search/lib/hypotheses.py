"""Candidate answers of a search that compares all of them after each token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from decodery.core.roles import Constraint
from decodery.core.stop import Stop
from decodery.core.tree import ROOT


class Hypothesis(NamedTuple):
    """A candidate answer: its tokens, their log-probability, the constraint's state, and when it ends by itself."""

    tokens: tuple[int, ...]
    total: float
    state: Any
    stop: Stop
    node: int = ROOT
    """Where it ends in the tree; an heir has its parent's until its own is made."""
    whole: bool = True
    """Whether the constraint lets the answer be what it is."""

    def then(self, token: int, total: float, constrain: Constraint) -> Hypothesis | None:
        """One token more; None where it is forbidden."""
        ends = token in self.stop.eos
        state = self.state if ends else constrain.advance(self.state, token)
        return None if state is None else self.grown(token, total, state, constrain)

    def grown(self, token: int, total: float, state: Any, constrain: Constraint) -> Hypothesis:
        """One token more, which leads to this state."""
        ends = token in self.stop.eos
        stop = self.stop.fork()
        tokens = (*self.tokens, token)
        stop.count([token])
        if (stop.text is not None and stop.text.push(token, shown=not ends)) or (
            stop.judge is not None and stop.judge(tokens)
        ):
            stop.reason = "stop"
        return Hypothesis(tokens, total, state, stop, self.node, ends or constrain.may_end(state))

    def stuck(self, constrain: Constraint) -> Hypothesis:
        """This one as an answer, for nothing may follow it."""
        return self._replace(stop=replace(self.stop, reason="dead_end"), whole=constrain.may_end(self.state))
