"""Particles: answers with weights, grown token by token and drawn anew by their weights."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from decodery.core.chooser import Chooser
from decodery.core.roles import Constraint
from decodery.core.stop import Stop
from decodery.core.values import Candidate, Tensor
from decodery.core.walk import masks
from decodery.search.lib.awrs import DEAD, Draw, awrs, masked
from decodery.search.lib.critics import Critic
from decodery.search.lib.hypotheses import Hypothesis
from decodery.search.lib.resampling import Resampling, effective, log_mean, normalised

Proposal = Callable[[Tensor, "Asked", Chooser], Draw]
"""The law of the next token ``[V]``, what the constraint says of it, randomness -> a token and the log of its weight."""


@dataclass
class Asked:
    """What a constraint says of the tokens after one state; each is asked about once, and that is counted."""

    constrain: Constraint
    state: Any
    eos: frozenset[int]
    calls: Counter[str]

    def __post_init__(self) -> None:
        self.after: dict[int, Any] = {}

    def __call__(self, token: int) -> bool:
        """Whether the token may follow."""
        if token not in self.after:
            self.calls["checks"] += 1
            if token in self.eos:
                self.after[token] = self.state if self.constrain.may_end(self.state) else None
            else:
                self.after[token] = self.constrain.advance(self.state, token)
        return self.after[token] is not None

    def mask(self, vocab: int) -> Tensor | None:
        """All tokens that may follow."""
        self.calls["checks"] += vocab
        (mask,) = masks(self.constrain, [self.state], self.eos)
        return mask


def by_rejection(accepts: int, least: float) -> Proposal:
    """Draw until tokens are allowed (AWRS)."""
    return lambda p, asked, rng: awrs(p, asked, rng, accepts, least)


def by_mask(p: Tensor, asked: Asked, rng: Chooser) -> Draw:
    """Draw from what the mask leaves."""
    draw = masked(p, asked.mask(len(p)), rng)
    return draw if draw.token is None or asked(draw.token) else DEAD


def by_ending(p: Tensor, asked: Asked, rng: Chooser) -> Draw:
    """End the answer, where it may end."""
    mask = p.new_zeros(p.shape).bool()
    mask[[token for token in asked.eos if asked(token)]] = True
    return masked(p, mask, rng)


def double(p: Tensor | None) -> Tensor | None:
    """A law in float64, summing to one: refused mass adds up too coarsely in float32."""
    return None if p is None else (wide := p.double()) / wide.sum()


def grown(
    one: Hypothesis, p: Tensor | None, proposal: Proposal, constrain: Constraint, rng: Chooser, calls: Counter[str]
) -> Hypothesis:
    """One token more; a particle that nothing may follow has no weight any more."""
    asked = Asked(constrain, one.state, one.stop.eos, calls)
    token, weight = DEAD if p is None else proposal(p, asked, rng)
    if token is None:
        return one.stuck(constrain)._replace(total=-math.inf)
    asked(token)
    return one.grown(token, one.total + weight, asked.after[token], constrain)


def drawn_anew(
    flock: Sequence[Hypothesis], threshold: float, resampling: Resampling, critic: Critic, rng: Chooser
) -> list[Hypothesis]:
    """The particles, drawn by their weights if these have become too unequal.

    Of a beginning, the critic's potential counts for this draw only; of an answer that has ended, it is in its weight.
    """
    twists = [0.0 if one.stop.reason else critic(one.tokens, False) for one in flock]
    logs = [one.total + twist for one, twist in zip(flock, twists, strict=True)]
    if max(logs) == -math.inf or effective(weights := normalised(logs)) >= threshold * len(flock):
        return list(flock)
    mean = log_mean(logs)
    return [flock[i]._replace(total=mean - twists[i]) for i in resampling(weights, rng)]


def taken(flock: Sequence[Hypothesis], stop: Stop, rng: Chooser) -> tuple[list[int], list[Candidate], float]:
    """The tokens of a particle drawn by weight, all different answers with it at their head, and the log-evidence.

    Without a weight above zero there is no answer: the reason is "dead_end".
    """
    evidence = log_mean([one.total for one in flock])
    if evidence == -math.inf:
        stop.count(())
        return [], [], evidence
    chosen = flock[rng.pick(torch.tensor(normalised([one.total for one in flock]), dtype=torch.float64))]
    totals: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for one in flock:
        totals[one.tokens].append(one.total)
    share = math.log(len(flock))
    found = [
        Candidate(tokens, log_mean(logs) + math.log(len(logs)) - share)
        for tokens, logs in totals.items()
        if max(logs) > -math.inf
    ]
    found.sort(key=lambda one: (one.tokens == chosen.tokens, one.score), reverse=True)
    stop.count(chosen.tokens)
    stop.reason = chosen.stop.reason or stop.reason
    return list(chosen.tokens), found, evidence


def judged(one: Hypothesis, critic: Critic) -> Hypothesis:
    """An answer that has ended, weighted by the critic for good."""
    return one._replace(total=one.total + critic(one.tokens, True)) if one.total > -math.inf else one


def out_of_time(one: Hypothesis, reason: str) -> Hypothesis:
    """An answer that ends here whatever it is."""
    return one._replace(stop=replace(one.stop, reason=reason))
