"""The loop. There is one: plain decoding is an empty tree, greedy decoding a one-hot law."""

from __future__ import annotations

import copy
from dataclasses import replace

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Program
from decodery.core.plan import Plan
from decodery.core.roles import Built
from decodery.core.stats import Ticks
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.values import Rows
from decodery.core.walk import masks, run, walk
from decodery.model.session import Ask, Session


def speculate(session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
    """Guess, look, decide, commit, learn; until ``stop``. Yields asks for each pass and a ``Step`` for each turn."""
    draft, constrain, plan = built.draft, built.constrain, built.plan
    state = constrain.start(session.tokens)
    draft.begin(session, built.laws)
    try:
        while not stop(session):
            tick = Ticks()
            proposing = draft.proposing(session, plan.budget(stop.budget(session)), rng)
            tree = yield from tick.during("draft", proposing)
            states = walk(constrain, state, tree, stop.eos)
            tick("constrain")
            ask = Ask(session, tree, built.want, offer=plan.offer(tree, tick.seconds["draft"]))
            rows = yield from tick.during("forward", answer(ask))
            if rows.kept is not None:  # the planner has cut the tree to what pays
                tree, states = tree.only(rows.kept), [state, *(states[node + 1] for node in rows.kept)]
            p = built.laws(rows, masks(constrain, states, stop.eos))
            tick("guide")
            verdict = stop.trim(built.verify(tree, p, rows, rng), tree)
            tick("verify")
            session.commit(tokens := verdict.tokens(tree))
            stop.count(tokens, not tokens and constrain.complete(state))
            state = run(constrain, state, tokens, stop.eos)
            tick("commit")
            step = Step(tree, rows, p, verdict, tokens, tick.seconds, tick.calls)
            yield from tick.during("draft", draft.observing(session, step, rng))
            plan.observe(step)
            yield step
    finally:
        session.keep(())
        draft.end(session)


def answer(ask: Ask) -> Asking[Rows]:
    """The rows of one ask."""
    (rows,) = yield [ask]
    return rows


def launch(built: Built, session: Session, rng: Chooser, stop: Stop, plan: Plan | None = None) -> Program:
    """The program of one request: a search, or the loop. Each has its own copy of the drafter and its own companions."""
    laws = built.laws.given(session.tokens[: session.prompt])
    session.accompany(laws.companions)
    own = replace(built, laws=laws, draft=copy.copy(built.draft), plan=plan or built.plan)
    return (speculate if own.search is None else own.search)(session, own, rng, stop)


def trial(built: Built, session: Session, rng: Chooser, stop: Stop) -> Program:
    """The loop on a fork of a search's session, whose companions it already has."""
    return speculate(session, replace(built, draft=copy.copy(built.draft), plan=built.plan.fork()), rng, stop)
