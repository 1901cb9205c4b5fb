"""Exact laws on toy models: what the engine does, every branch of its randomness enumerated, and what it should do."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.roles import Part
from decodery.core.stop import Stop
from decodery.core.values import Rows, Scheme
from decodery.core.walk import masks, run
from decodery.model.session import Session
from decodery.model.toy import ToyModel
from decodery.model.variant import LayerSet
from decodery.run.build import Built
from decodery.run.loop import speculate, together
from decodery.run.recipe import Recipe
from decodery.run.registry import ROLES, find
from decodery.run.spec import part

PROMPT = (0, 1, 0)
LENGTH = 2
Law = dict[tuple[int, ...], float]


def specimens(role: str) -> Iterator[tuple[str, Part]]:
    """Every registered part of a role, under each of its specimen parameters."""
    for name in ROLES[role].parts:
        kind = find(role, name).part
        for parameters in kind.specimens:
            shown = ",".join(f"{k}={v}" for k, v in parameters.items() if isinstance(v, (int, float, str)))
            yield f"{name}:{shown}" if shown else name, part(role, {name: parameters})


def fresh(model: ToyModel, built: Built, prompt: Sequence[int] = PROMPT) -> Session:
    session = model.session(prompt)
    session.accompany({name: c for guide in built.laws.guides for name, c in guide.companions().items()})
    return session


def wanted(model: ToyModel, built: Built, length: int = LENGTH, prompt: Sequence[int] = PROMPT) -> Law:
    """The law of ``length`` tokens by the definition: one token after another, no engine, no draft."""
    laws, constrain = built.laws, built.constrain
    companions = {name: c.prompt for guide in laws.guides for name, c in guide.companions().items()}
    law: Law = Counter()

    def follow(words: tuple[int, ...], state: Any, weight: float) -> None:
        if weight == 0 or len(words) == length or (words and words[-1] in model.eos):
            law[words] += weight
            return
        others = {
            name: Rows(model.lm((*start, *words))[None], (*start, *words), prompt=len(start))
            for name, start in companions.items()
        }
        rows = Rows(model.lm((*prompt, *words))[None], (*prompt, *words), prompt=len(prompt), companions=others)
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
    drafted: int = 0
    accepted: int = 0
    refused: int = 0
    ghosts: int = 0


def produced(
    model: ToyModel,
    built: Built,
    count: Count,
    length: int = LENGTH,
    batch: int = 1,
    prompt: Sequence[int] = PROMPT,
    layers: LayerSet | None = None,
) -> Law:
    """The law of the first ``length`` tokens that the engine emits; of row 0 where ``batch`` rows run together.

    With ``layers``, what follows the prompt goes through these only.
    """

    def once(rng: Chooser) -> tuple[int, ...]:
        arena = model.arena()
        programs, sessions = [], []
        for i in range(batch):
            session = Session(arena, (*prompt, *([2] * i)), layers=layers)
            session.accompany({name: c for guide in built.laws.guides for name, c in guide.companions().items()})
            # Branches of drawn drafts multiply, so these end sooner; the first step still goes a level past the end.
            slack = 4 if built.draft.emits == {Scheme.CERTAIN} else 1
            stop = Stop(eos=model.eos, max_new_tokens=length + slack)
            parts = (copy.deepcopy(built.draft), built.verify, built.laws, built.constrain)
            programs.append(speculate(session, *parts, rng if i == 0 else Seeded(i), stop, built.want))
            sessions.append(session)
        for i, step in together(programs):
            if i == 0:
                taken = len(step.verdict.path)
                count.drafted += len(step.tree)
                count.accepted += taken
                count.refused += taken < len(step.tree)
                count.ghosts += sum(step.tree.ghost)
                if len(sessions[0].tokens) >= len(prompt) + length:
                    break
        return tuple(sessions[0].tokens[len(prompt) :][:length])

    return enumerate_law(once)


def variation(a: Law, b: Law) -> float:
    """Total variation."""
    return sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in {*a, *b}) / 2


def recipe(
    draft: Part, verify: Part | None = None, guides: Sequence[Part] = (), constrain: Part | None = None
) -> Recipe:
    return Recipe.of(draft, verify, guides, constrain or "none")  # type: ignore[arg-type]


def all_sequences(vocab: int, length: int) -> Iterator[tuple[int, ...]]:
    yield from itertools.product(range(vocab), repeat=length)


torch.set_num_threads(1)
