"""First Finish Search: of several answers the shortest, for short chains of thought are more often right."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.part import Program
from decodery.core.roles import Built, Search
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.model.session import Ask, Session
from decodery.run.loop import answer
from decodery.search.lib.trials import Trial, Trials


@dataclass
class FirstFinish(Search):
    """Draws ``n`` answers side by side and keeps the one that ends with the fewest tokens; the others are cancelled.

    Every end of an answer's own counts (end of sequence, stop strings), a limit does not. The lowest number wins a tie.
    Where none finishes within the limits, the likeliest by mean log-probability is kept. Tokens decide, not passes: an
    answer whose drafts were accepted is not the shorter for it. Each answer is an exact sample; the one kept leans to
    short ones by construction. It helps models that reason; where a short answer means an empty one, it does not.
    """

    paper = "First Finish Search: Efficient Test-Time Scaling in Large Language Models (Agarwal et al. 2025)"
    drafts = True
    samples = True
    lossless = False
    specimens = ({"n": 2},)
    n: int = 4

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"first-finish needs n >= 1, not {self.n}")

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        yield from answer(Ask(session, TokenTree(), built.want))
        with closing(Trials(self.n, session, built, rng, stop)) as trials:
            while trials:
                for _, step in trials.tell((yield trials.asks())):
                    if step is not None:
                        yield step
                first = min((one for one in trials.all if one.finished), key=_order, default=None)
                for one in trials.all:
                    if first is not None and not one.finished and len(one.tokens) >= len(first.tokens):
                        trials.cancel(one)  # with one token more it could not be the first
            yield trials.settle(sorted(trials.all, key=_rank), _mean)


def _order(trial: Trial) -> tuple[int, int]:
    return len(trial.tokens), trial.number


def _rank(trial: Trial) -> tuple[bool, float]:
    """Finished ones by their length, then the others by their mean log-probability."""
    return not trial.finished, len(trial.tokens) if trial.finished else -_mean(trial)


def _mean(trial: Trial) -> float:
    return trial.log_p / max(len(trial.tokens), 1)
