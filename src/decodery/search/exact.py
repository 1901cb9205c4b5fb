"""The likeliest answer, with proof."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.errors import DecoderyError
from decodery.core.law import forbid
from decodery.core.part import Program
from decodery.core.roles import Built, Search
from decodery.core.stats import Ticks
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import Candidate
from decodery.core.walk import masks
from decodery.model.session import Ask, Session
from decodery.run.loop import answer
from decodery.search.lib.hypotheses import Hypothesis

Open = tuple[float, int, int, Hypothesis]
"""The negative log-probability of a beginning, a number that breaks ties, its last token, and what stands before that."""


@dataclass
class Exact(Search):
    """Finds the ``n`` likeliest answers that the constraint allows: no other is likelier under the model's guided law.

    It forwards beginnings in order of their probability, ``width`` a pass, until whole answers lie before all of them: an
    answer is never likelier than its beginnings. Beginnings that answers share are computed once. Probabilities are those
    of the law before the constraint, so one of few choices is not the likelier for it. With ``constrain=span``
    it is the exact extraction of the paper; with ``choice`` an exact classification. A score is a log-probability (nats),
    end-of-sequence included; an answer that the limit cuts short against the constraint counts only where there is no other.
    Raises ``DecoderyError`` where ``most`` nodes prove nothing: answers must be few, or short, or the model sure.
    """

    paper = "How Optimal is Greedy Decoding for Extractive Question Answering? (Castel et al. 2022)"
    samples = False
    n: Annotated[int, Ge(1)] = 1
    width: Annotated[int, Ge(1)] = 16
    most: Annotated[int, Ge(1)] = 4096

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        if stop(session):
            return
        text = stop.text if stop.text and stop.text.stops else None
        alone = replace(stop, text=text, max_new_tokens=stop.emitted + stop.left(len(session.tokens)))
        found: list[Hypothesis] = []
        cut: list[Hypothesis] = []
        heap: list[Open] = []
        tree, tick, fresh = TokenTree(), Ticks(), None
        batch = [Hypothesis((), 0.0, built.constrain.start(session.tokens), alone)]
        try:
            while True:
                rows = yield from tick.during("forward", answer(Ask(session, tree, built.want, fresh)))
                p = built.laws(rows)
                every = p.logits.double().log_softmax(-1)
                forbid(every, masks(built.constrain, [one.state for one in batch], stop.eos))
                tick("guide")
                for one, logs in zip(batch, every, strict=True):
                    if bool((logs == -torch.inf).all()):
                        cut.append(one.stuck(built.constrain))
                        continue
                    best = logs.topk(min(self.most + self.n, int((logs > -torch.inf).sum())))
                    for log_p, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                        heapq.heappush(heap, (-one.total - log_p, len(tree) * p.logits.shape[1] + token, token, one))
                batch = self._next(heap, found, cut, built)
                tick("search")
                if not batch or stop(session):
                    break
                if len(tree) + len(batch) > self.most:
                    raise DecoderyError(
                        f"exact: after {len(tree)} nodes the likeliest answer is not proven; constrain the answer more, "
                        "let it be shorter, or raise most"
                    )
                yield Step(TokenTree(), rows, p, Verdict(()), [], tick.seconds, tick.calls)
                tick = Ticks()
                fresh = [tree.add(one.tokens[-1], one.node) for one in batch]
                batch = [one._replace(node=node) for one, node in zip(batch, fresh, strict=True)]
            ended = found or sorted(cut or batch, key=lambda one: (one.whole, one.total), reverse=True)[: self.n]
            tokens = list(ended[0].tokens)
            session.commit(tokens)
            stop.count(tokens)
            stop.reason = ended[0].stop.reason or stop.reason
            told = [Candidate(one.tokens, one.total) for one in ended]
            yield Step(TokenTree(), rows, p, Verdict((), tuple(tokens)), tokens, tick.seconds, tick.calls, told)
        finally:
            session.keep(())

    def _next(self, heap: list[Open], found: list[Hypothesis], cut: list[Hypothesis], built: Built) -> list[Hypothesis]:
        """The likeliest beginnings to look behind; none where enough answers are found, which are then in ``found``."""
        batch: list[Hypothesis] = []
        while heap and len(batch) < self.width and len(found) < self.n:
            entry = heapq.heappop(heap)
            score, _, token, before = entry
            if (one := before.then(token, -score, built.constrain)) is None:
                continue
            if one.stop.reason is None:
                batch.append(one)
            elif not one.whole:
                cut.append(one)
            elif batch:  # what lies behind these may still be likelier
                heapq.heappush(heap, entry)
                break
            else:
                found.append(one)
        return batch if len(found) < self.n else []
