"""Best of n: draw several answers and keep the likeliest."""

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
class BestOfN(Search):
    """Draws ``n`` answers side by side over one prompt cache; the one of the best score is the answer.

    The score of an answer is its log-probability under the model's own law, divided by ``tokens ** length_penalty``: 1 is
    the mean of its tokens, 0 the whole, which favours short answers. The lower number wins a tie. Each answer is an exact
    sample, and drafts inside do not change that; the answer kept follows another law than a single sample.
    """

    paper = "Learning to summarize from human feedback (Stiennon et al. 2020), best-of-n sampling"
    drafts = True
    samples = True
    lossless = False
    specimens = ({"n": 2},)
    n: int = 4
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"best-of-n needs n >= 1, not {self.n}")

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        yield from answer(Ask(session, TokenTree(), built.want))
        with closing(Trials(self.n, session, built, rng, stop)) as trials:
            while trials:
                for _, step in trials.tell((yield trials.asks())):
                    if step is not None:
                        yield step
            yield trials.settle(sorted(trials.all, key=self.score, reverse=True), self.score)

    def score(self, trial: Trial) -> float:
        """What answers are compared by (nats)."""
        return trial.log_p / float(max(len(trial.tokens), 1) ** self.length_penalty)
