"""Exact laws on toy models: what the engine does, every branch of its randomness enumerated, and what it should do."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.roles import Built, Part
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.values import Rows, Scheme, Want
from decodery.core.walk import masks, run
from decodery.model.session import Session
from decodery.model.toy import ToyModel
from decodery.model.variant import PLAIN, Variant
from decodery.run.crew import Crew, Failed
from decodery.run.loop import launch
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
            shown = ",".join(
                f"{k}={v}"
                for k, v in parameters.items()
                if isinstance(v, (int, float)) or (isinstance(v, str) and ":" not in v)
            )
            yield f"{name}:{shown}" if shown else name, part(role, {name: parameters})


def wanted(model: ToyModel, built: Built, length: int = LENGTH, prompt: Sequence[int] = PROMPT) -> Law:
    """The law of ``length`` tokens by the definition: one token after another, no engine, no draft."""
    laws, constrain = built.laws.given(prompt), built.constrain
    law: Law = Counter()

    def row(start: Sequence[int], words: tuple[int, ...], want: Want) -> Rows:
        text = (*start, *words)
        hidden = dict.fromkeys(want.hidden, model.shallow(text)[None])
        return Rows(model.lm(text)[None], text, prompt=len(start), hidden=hidden)

    def follow(words: tuple[int, ...], state: Any, weight: float) -> None:
        if weight == 0 or len(words) == length or (words and words[-1] in model.eos):
            law[words] += weight
            return
        others = {name: row(companion.prompt, words, companion.want) for name, companion in laws.companions.items()}
        rows = row(prompt, words, built.want)
        rows.companions = others
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
    variant: Variant = PLAIN,
) -> Law:
    """The law of the first ``length`` tokens that the engine emits; of row 0 where ``batch`` rows run together.

    With a ``variant``, what follows the prompt goes through this only.
    """

    def once(rng: Chooser) -> tuple[int, ...]:
        arena = model.arena()
        crew, sessions = Crew(), []
        for i in range(batch):
            session = Session(arena, (*prompt, *([2] * i)), variant=variant)
            # Branches of drawn drafts multiply, so these end sooner; the first step still goes a level past the end.
            slack = 4 if built.draft.emits == {Scheme.CERTAIN} else 1
            stop = Stop(eos=model.eos, max_new_tokens=length + slack)
            own = replace(built, draft=copy.deepcopy(built.draft))
            crew.add(i, launch(own, session, rng if i == 0 else Seeded(i), stop))
            sessions.append(session)
        for i, step in crew.run():
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
        assert not arena.nodes or [session.close() for session in sessions]
        arena.check()
        assert not arena.nodes, "nodes outlive the request"
        return words

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
