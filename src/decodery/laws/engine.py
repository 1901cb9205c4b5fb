"""Parts together: the law of what the engine emits, every branch enumerated, against the definition."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.plan import OFF, Plan
from decodery.core.roles import Built, Laws
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.values import Cap, Rows, Scheme, Want
from decodery.core.walk import masks, run
from decodery.laws.cases import Case, Factors
from decodery.laws.specimens import TOYS, claim
from decodery.model.session import Session
from decodery.model.toy import ToyModel
from decodery.model.variant import PLAIN, Variant, through
from decodery.plan.costs import Costs
from decodery.plan.planner import Auto, JointPlan
from decodery.run.build import build
from decodery.run.crew import Crew, Failed
from decodery.run.loop import launch
from decodery.run.recipe import Recipe

PROMPT = (0, 1, 0)
LENGTH = 2
COSTS = {1: 1.0, 2: 1.1, 4: 1.3, 8: 2.0}
"""Seconds of a forward by its tokens under which a planner cuts some trees and leaves others whole."""
Law = dict[tuple[int, ...], float]


def definition_rows(
    model: ToyModel, laws: Laws, prompt: Sequence[int], words: Sequence[int], want: Want, variant: Variant = PLAIN
) -> Rows:
    """The one row after prompt and words, companions included, as the model itself defines it: no session, no tree.

    With a ``variant`` of the network, the prompt goes through all of it and what follows through the variant.
    """

    def row(source: Any, start: Sequence[int], want: Want, through: Variant) -> Rows:
        lm = source.lm if through == PLAIN or not words else source.shallow
        text = (*start, *words)
        return Rows(
            lm(text)[None], text, prompt=len(start), hidden=dict.fromkeys(want.hidden, source.shallow(text)[None])
        )

    rows = row(model, prompt, want, variant)
    for name, one in laws.companions.items():
        through = PLAIN if one.model else variant if one.variant == PLAIN else one.variant
        rows.companions[name] = row(one.model or model, one.prompt, one.want, through)
    return rows


def wanted(
    model: ToyModel, built: Built, length: int = LENGTH, prompt: Sequence[int] = PROMPT, variant: Variant = PLAIN
) -> Law:
    """The law of ``length`` tokens by the definition: one token after another, no engine, no draft."""
    laws, constrain = built.laws.given(prompt), built.constrain
    law: Law = defaultdict(float)

    def follow(words: tuple[int, ...], state: Any, weight: float) -> None:
        if weight == 0 or len(words) == length or (words and words[-1] in model.eos):
            law[words] += weight
            return
        rows = definition_rows(model, laws, prompt, words, built.want, variant)
        p = laws(rows, masks(constrain, [state], model.eos)).row(0)
        if p is None:
            law[words] += weight
            return
        for token, chance in enumerate(p.tolist()):
            if chance > 0:
                follow((*words, token), run(constrain, state, [token], model.eos), weight * chance)

    follow((), constrain.start(prompt), 1.0)
    return dict(law)


@dataclass
class Count:
    """What the runs of an enumeration did, so that a law that was never put to the test is noticed."""

    drafted: int = 0
    accepted: int = 0
    refused: int = 0
    ghosts: int = 0
    cut: int = 0


def produced(
    model: ToyModel,
    built: Built,
    count: Count,
    length: int = LENGTH,
    batch: int = 1,
    prompt: Sequence[int] = PROMPT,
    variant: Variant = PLAIN,
    planned: bool = False,
) -> Law:
    """The law of the first ``length`` tokens that the engine emits; of row 0 where ``batch`` rows run together.

    With a ``variant``, what follows the prompt goes through this only. ``planned``: a planner cuts the trees.
    """

    def once(rng: Chooser) -> tuple[int, ...]:
        arena = model.arena()
        crew, sessions = Crew(), []
        joint = StillJoint(StillCosts(dict(COSTS)), count) if planned else None
        for i in range(batch):
            session = Session(arena, (*prompt, *([2] * i)), variant=variant)
            # Branches of drawn drafts multiply, so these end sooner; the first step still goes a level past the end.
            slack = 4 if built.draft.emits == {Scheme.CERTAIN} else 1
            stop = Stop(eos=model.eos, max_new_tokens=length + slack)
            own = replace(built, draft=copy.deepcopy(built.draft))
            plan: Plan = StillPlan(StillCosts(dict(COSTS))) if planned else OFF
            crew.add(i, launch(own, session, rng if i == 0 else Seeded(i), stop, plan))
            sessions.append(session)
        for i, step in crew.run(joint):
            if isinstance(step, Failed):
                raise step.error
            if i == 0 and isinstance(step, Step):
                taken = len(step.verdict.path)
                count.drafted += len(step.tree)
                count.accepted += taken
                count.refused += taken < len(step.tree)
                count.ghosts += sum(step.tree.ghost)
                if len(sessions[0].tokens) >= len(prompt) + length:
                    break
        words = tuple(sessions[0].tokens[len(prompt) :][:length])
        crew.close()
        for session in sessions:
            session.close()
        arena.check()
        claim(not arena.nodes, "nodes outlive the request")
        return words

    return enumerate_law(once)


def variation(a: Law, b: Law) -> float:
    """Total variation."""
    return sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in {*a, *b}) / 2


class StillCosts(Costs):
    """Costs that no toy's real seconds correct."""

    def correct(self, n: int, seconds: float, after: int | None = None) -> None:
        """Learn nothing."""


class StillPlan(Auto):
    """A plan for which drafting takes no time, so that it repeats."""

    def observe(self, step: Step) -> None:
        super().observe(replace(step, seconds={}))


@dataclass
class StillJoint(JointPlan):
    """Counts the nodes that it cuts."""

    count: Count | None = None

    def __init__(self, costs: Costs, count: Count) -> None:
        super().__init__(costs)
        self.count = count

    def cut(self, asks: Sequence[Any]) -> list[Sequence[int] | None]:
        """What the planner says."""
        kept = super().cut(asks)
        assert self.count is not None
        self.count.cut += sum(
            len(ask.tree) - len(nodes) for ask, nodes in zip(asks, kept, strict=True) if nodes is not None
        )
        return kept


def examine(case: Case, factors: Factors, count: Count) -> bool:
    """Enumerate one case on both toys: exact where no part says it is lossy, and never outside what the definition allows.

    Returns whether it was exact. Raises ``LawBroken`` with a line that repeats the case, ``PartsClash`` where it is refused.
    """
    recipe = recipe_of(case, factors)
    variant = through({0}) if case.thin else PLAIN
    lossless = True
    for name, toy in TOYS.items():
        model = replace(toy, letters=recipe.constrain.letters, can=frozenset({Cap.TREE}) if case.thin else toy.can)
        built = build(recipe, model)
        want = wanted(model, built, variant=variant)
        try:
            have = produced(model, built, count, batch=case.batch, variant=variant, planned=case.plan)
        except Exception as error:
            error.add_note(f"{case} on the toy {name!r}. {case.repeat()}")
            raise
        apart, support = variation(want, have), {words for words, chance in want.items() if chance > 0}
        claim(have.keys() <= support, f"{case} on the toy {name!r}: emits what is not allowed. {case.repeat()}")
        lossless = built.lossless
        claim(apart < 1e-9 or not lossless, f"{case} on the toy {name!r}: wrong by {apart:.1e}. {case.repeat()}")
    return lossless


def recipe_of(case: Case, factors: Factors) -> Recipe:
    """The recipe of a case."""
    drafts, verifiers, guides, constraints = (dict(factors[i]) for i in range(4))
    return Recipe.of(
        copy.deepcopy(drafts[case.draft]), verifiers[case.verify], guides[case.guide], constraints[case.constrain]
    )
