"""Beam search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from decodery.constrain.walk import masks
from decodery.law import Law, Laws
from decodery.loop import Ticks
from decodery.model.arena import Feed
from decodery.model.session import Ask, Session
from decodery.stop import Stop
from decodery.tree import EMPTY
from decodery.words import Candidate, Chooser, Constraint, Program, Rows, Search, Step, Tensor, Verdict, Want


class Hypothesis(NamedTuple):
    """A candidate answer so far: its tokens, their log-probability, the constraint's state and its own count."""

    tokens: tuple[int, ...]
    total: float
    state: Any
    stop: Stop
    whole: bool = True
    """Whether the constraint lets it end here."""


@dataclass
class Beam(Search):
    """Keeps the ``width`` likeliest beginnings at every length; the answer is the best that came to an end.

    An ended answer scores ``log p / tokens ** length_penalty``, where its end-of-sequence token counts and p is the law
    after guides and constraint, so above 0 favours long answers. ``early_stopping``: True ends once ``width`` answers are
    there; False once the best beginning, scored as if it ended now, is no better than the worst of them; "never" reckons
    with the longest text it may still become. All as in transformers, with two differences: guides see logits and the law
    is normalised after them, as everywhere in Decodery; and an answer cut short against the constraint counts only where
    there is no other.
    """

    paper = "Sequence Transduction with Recurrent Neural Networks (Graves 2012)"
    width: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"beam needs a width of at least 1, not {self.width}")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"beam needs a finite length_penalty, e.g. 1.0, not {self.length_penalty}")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f'beam: early_stopping is true, false or "never", not {self.early_stopping!r}')

    def __call__(self, session: Session, laws: Laws, constrain: Constraint, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        longest = stop.left(len(session.tokens))
        running = [Hypothesis((), 0.0, constrain.start(session.tokens), _count(stop, stop.emitted + longest))]
        ended: list[Hypothesis] = []
        tick, want = Ticks(), self.want
        for guide in laws.guides:
            want |= guide.want
        rows = tick("forward", (yield Ask(session, EMPTY, want)))
        frontier = Frontier(session, want)
        try:
            while True:
                allowed = tick("constrain", masks(constrain, [one.state for one in running], stop.eos))
                p = tick("guide", laws(rows, allowed))
                parents, running, new = self._choose(running, p, constrain, over=stop(session))
                ended = sorted([*ended, *new], key=self._rank, reverse=True)[: self.width]
                tick("search", None)
                if not running or self._settled(running[0], ended, longest):
                    break
                yield Step(EMPTY, rows, p, Verdict(()), [], tick.seconds)
                tick = Ticks()
                rows = tick("forward", frontier.grow(parents, [one.tokens for one in running]))
        finally:
            frontier.close()
        best = ended[0]
        tokens = list(best.tokens[: stop.take(best.tokens)])
        stop.reason = best.stop.reason or stop.reason
        session.commit(tokens)
        candidates = [Candidate(one.tokens, self._score(one)) for one in ended]
        yield Step(EMPTY, rows, p, Verdict((), tuple(tokens)), tokens, tick("commit", tick.seconds), candidates)

    def _choose(
        self, running: Sequence[Hypothesis], p: Law, constrain: Constraint, over: bool
    ) -> tuple[list[int], list[Hypothesis], list[Hypothesis]]:
        """One token more: the rows that have heirs, these heirs, and what came to an end; all end where it is ``over``."""
        dead = [row for row, best in enumerate(p.best) if best is None]
        ended = [self._stuck(running[row], constrain) for row in dead]
        logs = p.logits.log_softmax(-1, dtype=torch.promote_types(p.logits.dtype, torch.float32))
        totals = logs + logs.new_tensor([one.total for one in running])[:, None]
        totals[dead] = -torch.inf
        eos = running[0].stop.eos
        best = totals.flatten().topk(min(max(2, 1 + len(eos)) * self.width, totals.numel()))
        parents: list[int] = []
        heirs: list[Hypothesis] = []
        for place, (total, at) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            row, token = divmod(at, totals.shape[1])
            if total == -torch.inf or (place >= self.width and len(heirs) == self.width):
                break
            above = running[row]
            state = above.state if token in eos else constrain.advance(above.state, token)
            if state is None:
                continue
            count = _count(above.stop)
            count.take([token])
            whole = token in eos or constrain.may_end(state)
            heir = Hypothesis((*above.tokens, token), total, state, count, whole)
            if count.reason is None and not over:
                if len(heirs) < self.width:
                    parents.append(row)
                    heirs.append(heir)
            elif place < self.width:
                ended.append(heir)
        return parents, heirs, ended
