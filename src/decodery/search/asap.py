"""ASAp: sample after sample, each of which teaches the next what the grammar will forbid later."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.part import Program
from decodery.core.roles import Built, Search
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.model.session import Ask, Session
from decodery.run.loop import answer
from decodery.search.lib.future import Aligned, Future
from decodery.search.lib.trials import Trial, Trials


@dataclass
class Asap(Search):
    """Draws ``n`` answers one after another; their law comes ever closer to the model's law given the constraint.

    A mask alone cannot see that a beginning leads into what the grammar forbids. Each answer tells how much of the law was
    forbidden along its way, in a trie that is kept for all ``n``; tokens are then drawn by their probability times the
    share of their future that may still be grammatical. Rows of refused drafts teach as well, so drafts help twice.
    The first answer is plain constrained sampling; the last one is the answer. The guides see all tokens, the forbidden
    ones too. A candidate's score is the log of its probability given the constraint, as known at the end (never above the
    true one); ``log_evidence`` is the log of what may be grammatical at all (never below the true one).
    """

    paper = "Grammar-Aligned Decoding (Park et al. 2024)"
    drafts = True
    samples = True
    lossless = False
    specimens = ({"n": 2},)
    n: Annotated[int, Ge(1)] = 16

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        yield from answer(Ask(session, TokenTree(), built.want))
        future, laws = Future(), built.laws
        aligned = replace(built, laws=Aligned(laws.guides, laws.greedy, laws.companions, laws.constrain, future=future))
        with closing(Trials(0, session, aligned, rng, stop)) as trials:
            while len(trials.all) < self.n and not (trials.all and stop(session)):
                for one in trials.all:
                    one.session.close()  # of samples that are over only the tokens are needed
                trials.begin()
                while trials:
                    for one, step in trials.tell((yield trials.asks())):
                        if step is not None:
                            future.learn(step, one.tokens)
                            yield step
            evidence = math.log(future.root.c) if future.root.c > 0 else -math.inf

            def score(one: Trial) -> float:
                return future.log_p(one.tokens) - evidence

            *earlier, last = trials.all
            settled = trials.settle([last, *sorted(earlier, key=score, reverse=True)], score)
            settled.log_evidence = evidence
            yield settled
