"""The loop. There is one: plain decoding is an empty tree, greedy decoding a one-hot law."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from decodery.core.chooser import Chooser
from decodery.core.roles import Constraint, Drafter, Laws, Program, Verifier
from decodery.core.stats import Ticks
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.values import Rows, Want
from decodery.core.walk import masks, run, walk
from decodery.model.session import Ask, Session, forward
from decodery.plan.planner import OFF, Plan


def speculate(
    session: Session,
    draft: Drafter,
    verify: Verifier,
    laws: Laws,
    constrain: Constraint,
    rng: Chooser,
    stop: Stop,
    want: Want,
    plan: Plan = OFF,
) -> Program:
    """Guess, look, decide, commit, learn; until ``stop``. Yields an ``Ask`` for each pass and a ``Step`` for each turn."""
    draft.begin(session, laws)
    state = constrain.start(session.tokens)
    while not stop(session):
        tick = Ticks()
        tree = tick("draft", plan.cut(draft.propose(session, plan.budget(stop.budget(session)), rng)))
        states = tick("constrain", walk(constrain, state, tree, stop.eos))
        rows = tick("forward", (yield Ask(session, tree, want)))
        p = tick("guide", laws(rows, masks(constrain, states, stop.eos)))
        verdict = tick("verify", stop.trim(verify(tree, p, rows, rng), tree))
        tokens = verdict.tokens(tree)
        session.commit(tokens)
        state = run(constrain, state, tokens, stop.eos)
        tick("commit", None)
        draft.observe(session, step := Step(tree, rows, p, verdict, tokens, tick.seconds), rng)
        tick("draft", None)
        plan.observe(step)
        yield step


def together(programs: Iterable[Program]) -> Iterator[tuple[int, Step]]:
    """Run programs in lock-step, one forward a round for all of them; yields each step with its program's number."""
    waiting: dict[int, tuple[Program, Ask]] = {}

    def advance(i: int, program: Program, rows: Rows | None) -> Iterator[tuple[int, Step]]:
        """Run one program up to its next question."""
        try:
            said = next(program) if rows is None else program.send(rows)
            while isinstance(said, Step):
                yield i, said
                said = next(program)
            waiting[i] = program, said
        except StopIteration:
            return

    for i, program in enumerate(programs):
        yield from advance(i, program, None)
    while waiting:
        turn = list(waiting.items())
        waiting.clear()
        for (i, (program, _)), rows in zip(turn, forward([ask for _, (_, ask) in turn]), strict=True):
            yield from advance(i, program, rows)
