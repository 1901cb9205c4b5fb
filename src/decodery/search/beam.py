"""Beam search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.part import Program
from decodery.core.roles import Built, Constraint, Search
from decodery.core.stats import Ticks
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import Candidate
from decodery.core.walk import masks
from decodery.model.session import Ask, Session
from decodery.run.loop import answer
from decodery.search.lib.hypotheses import Hypothesis


@dataclass
class Beam(Search):
    """Keeps the ``width`` likeliest beginnings at each length; the answer is the best of those that came to an end.

    An answer scores ``log p / tokens ** length_penalty`` (above 0 favours long ones), its end-of-sequence token included.
    ``early_stopping``: True ends once ``width`` answers are there; False once the best beginning, scored as if it ended
    now, beats none of them; "never" scores it at the greatest length it may still reach. All as in transformers, except
    that p is the law of all Decodery: guides see logits, and what they leave is normalised. An answer that limits cut
    short against the constraint counts only where there is no other.
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
            raise ValueError(f'beam takes early_stopping=true, false or "never", not {self.early_stopping!r}')

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        laws, constrain = built.laws, built.constrain
        longest = stop.left(len(session.tokens))
        text = stop.text if stop.text and stop.text.stops else None
        alone = replace(stop, text=text, max_new_tokens=stop.emitted + longest)
        running = [Hypothesis((), 0.0, constrain.start(session.tokens), alone)]
        ended: list[Hypothesis] = []
        tree, tick, fresh = TokenTree(), Ticks(), None
        try:
            while True:
                rows = yield from tick.during("forward", answer(Ask(session, tree, built.want, fresh)))
                allowed = masks(constrain, [one.state for one in running], stop.eos)
                tick("constrain")
                p = laws(rows, allowed)
                tick("guide")
                running, over = self._choose(running, p, constrain, over=stop(session))
                ended = sorted([*ended, *over], key=self._rank, reverse=True)[: self.width]
                tick("search")
                if not running or self._settled(running[0], [one for one in ended if one.whole], longest):
                    break
                yield Step(TokenTree(), rows, p, Verdict(()), [], tick.seconds, tick.calls)
                tick = Ticks()
                session.keep(one.node for one in running)
                running = [one._replace(node=tree.add(one.tokens[-1], one.node)) for one in running]
                fresh = [one.node for one in running]
            ended = [one for one in ended if one.whole] or ended
            tokens = list(ended[0].tokens)
            session.commit(tokens)
            stop.count(tokens)
            stop.reason = ended[0].stop.reason or stop.reason
            tick("commit")
            found = [Candidate(one.tokens, self.score(one)) for one in ended]
            yield Step(TokenTree(), rows, p, Verdict((), tuple(tokens)), tokens, tick.seconds, tick.calls, found)
        finally:
            session.keep(())

    def score(self, one: Hypothesis) -> float:
        """What ended answers are compared by."""
        return one.total / float(max(len(one.tokens), 1) ** self.length_penalty)

    def _rank(self, one: Hypothesis) -> tuple[bool, float]:
        return one.whole, self.score(one)

    def _settled(self, best: Hypothesis, ended: Sequence[Hypothesis], longest: int) -> bool:
        """Whether no more is to be hoped for (or wanted)."""
        if len(ended) < self.width:
            return False
        reach = longest if self.early_stopping == "never" and self.length_penalty > 0 else len(best.tokens)
        return self.early_stopping is True or best.total / reach**self.length_penalty <= self.score(ended[-1])

    def _choose(
        self, running: Sequence[Hypothesis], p: Law, constrain: Constraint, over: bool
    ) -> tuple[list[Hypothesis], list[Hypothesis]]:
        """One token more: the heirs, and what ended here (all of it where it is ``over``)."""
        dead = [row for row, best in enumerate(p.best) if best is None]
        ended = [one for row in dead if (one := running[row].stuck(constrain)).whole]
        totals = p.logits.log_softmax(-1)
        totals += totals.new_tensor([one.total for one in running])[:, None]
        totals[dead] = -torch.inf
        enough = max(2, 1 + len(running[0].stop.eos)) * self.width  # so that width are left if all that can end do
        best = totals.flatten().topk(min(enough, totals.numel()))
        heirs: list[Hypothesis] = []
        place = 0
        for total, at in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(at, totals.shape[1])
            if total == -torch.inf or len(heirs) == self.width:
                break
            if (heir := running[row].then(token, total, constrain)) is None:
                continue
            if heir.stop.reason is None and not over:
                heirs.append(heir)
            elif place < self.width:  # the others are looked at for the sake of heirs only
                ended.append(heir)
            place += 1
        if not heirs and not ended:
            ended = [one.stuck(constrain) for one in running]
        return heirs, ended
