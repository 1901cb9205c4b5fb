"""Sequential Monte Carlo: weighted answers under a constraint that need not have a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, Lt

from decodery.core.chooser import Chooser
from decodery.core.errors import DecoderyError
from decodery.core.part import Model, Program
from decodery.core.roles import Built, Search
from decodery.core.stats import Ticks
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.model.session import Ask, Session
from decodery.run.loop import answer
from decodery.search.lib.critics import Critic
from decodery.search.lib.hypotheses import Hypothesis
from decodery.search.lib.particles import (
    by_ending,
    by_mask,
    by_rejection,
    double,
    drawn_anew,
    grown,
    judged,
    out_of_time,
    taken,
)
from decodery.search.lib.resampling import METHODS


@dataclass
class Smc(Search):
    """Draws ``particles`` answers with weights that say how far each stands for the model's law given the constraint.

    Each token is drawn by AWRS, which asks the constraint about a few likely tokens and never about all. Where the
    effective sample size falls below ``threshold * particles``, particles are drawn anew by their weights (``resample``).
    The answer is drawn by weight from the final ones; as particles grow in number it follows the model's law given the
    constraint. One particle is plain constrained sampling without a mask.

    ``candidates`` holds the different answers: the one taken first, then by score. A score is the log of an unbiased
    estimate of the answer's probability under the guided law, forbidden answers counted as zero; ``log_evidence`` is the log
    of their sum. The guides see all tokens here, for there is no mask. ``Stats.calls["checks"]`` counts the tokens asked about.

    ``accepts``: how many draws must be allowed for one token; more make weights steadier. ``least``: a place
    where less than this share of the law is not refused yet counts as a dead end, as in the authors' code; 0 asks on to the
    last token. ``masks``: take the constraint's
    mask instead of AWRS. ``whole``: only answers that end within the limit count; their last token is then an
    end-of-sequence. ``critic``: a callable or ``python:module:function`` of the answer's bytes so far and of whether it has
    ended, which answers a log-potential (nats, -inf to refuse): it steers the resampling, and ended answers are weighted by it.
    """

    paper = (
        "Fast Controlled Generation from Language Models with Adaptive Weighted Rejection Sampling (Lipkin et al. 2025)"
    )
    samples = True
    lossless = False
    specimens = ({"particles": 2},)
    particles: Annotated[int, Ge(1)] = 8
    resample: Literal["systematic", "stratified", "residual", "multinomial"] = "systematic"
    threshold: Annotated[float, Ge(0), Le(1)] = 0.5
    accepts: Annotated[int, Ge(2)] = 2
    least: Annotated[float, Ge(0), Lt(1)] = 1e-5
    masks: bool = False
    whole: bool = False
    critic: Callable[..., Any] | str | None = None

    def bind(self, model: Model) -> Self:
        if self.whole and not model.eos:
            raise DecoderyError("smc:whole needs a model with an end-of-sequence token, and this one has none")
        self._critic = Critic(self.critic, model)
        return self

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        longest = stop.left(len(session.tokens))
        text = stop.text if stop.text and stop.text.stops else None
        alone = replace(stop, text=text, max_new_tokens=stop.emitted + longest)
        flock = [Hypothesis((), 0.0, built.constrain.start(session.tokens), alone)] * self.particles
        running, length = list(flock), 0
        tree, tick, fresh = TokenTree(), Ticks(), None
        try:
            while True:
                rows = yield from tick.during("forward", answer(Ask(session, tree, built.want, fresh)))
                p = built.laws(rows)
                places = {one.node: rows.at(one.node) for one in running}
                laws = {node: None if row is None else double(p.row(row)) for node, row in places.items()}
                tick("guide")
                length += 1
                usual = by_mask if self.masks else by_rejection(self.accepts, self.least)
                proposal = by_ending if self.whole and length == longest else usual
                for i, one in enumerate(flock):
                    if one.stop.reason is None:
                        one = grown(one, laws[one.node], proposal, built.constrain, rng, tick.calls)
                        if one.stop.reason is None and stop(session):
                            one = out_of_time(one, stop.reason or "")
                        flock[i] = judged(one, self._critic) if one.stop.reason else one
                if any(one.stop.reason is None for one in flock):
                    flock = drawn_anew(flock, self.threshold, METHODS[self.resample], self._critic, rng)
                tick("search")
                if all(one.stop.reason for one in flock):
                    break
                yield Step(TokenTree(), rows, p, Verdict(()), [], tick.seconds, tick.calls)
                tick = Ticks()
                running = [one for one in flock if one.stop.reason is None]
                session.keep(one.node for one in running)
                fresh = []
                for i, one in enumerate(flock):
                    if one.stop.reason is None:
                        if (node := tree.child(one.node, one.tokens[-1])) is None:
                            fresh.append(node := tree.add(one.tokens[-1], one.node))
                        flock[i] = one._replace(node=node)
                running = [one for one in flock if one.stop.reason is None]
            tokens, found, evidence = taken(flock, stop, rng)
            session.commit(tokens)
            tick("commit")
            verdict = Verdict((), tuple(tokens))
            yield Step(TokenTree(), rows, p, verdict, tokens, tick.seconds, tick.calls, found, evidence)
        finally:
            session.keep(())
