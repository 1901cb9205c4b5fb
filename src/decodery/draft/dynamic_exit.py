"""DEL: an early exit whose layer and draft length follow the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model
from decodery.core.roles import Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Cap, Rows, Scheme, Tensor, Want
from decodery.draft.lib.draft_model import Thinned
from decodery.draft.lib.early_exits import Shadow, best
from decodery.model.session import Session
from decodery.model.variant import through

PROMPT = 32  # last positions of the prompt that are looked at when a request begins


@dataclass
class DynamicExit(Thinned):
    """Drafts by the target's first layers; after each pass it compares what every exit would have guessed, and takes the best.

    Best is the pair of exit and length that promises most tokens for each layer computed; a draft also ends where its
    exit is less sure than half way between its right and its wrong guesses. Length 0 is plain decoding: of a network that
    was not trained for early exits that is the usual outcome, and then only every ``pause``-th pass is looked at.
    ``every``: one exit each so many layers; each costs a product with the head for every position looked at, and its
    states ``[m, d]`` of every pass. ``exits``: these instead (how many layers run). ``max``: longest draft. ``decay``: of
    what was seen, by pass. ``head``: how many layers a product with the head counts for (by default estimated from the
    sizes; the paper counts 0). Everything is learnt anew in each request.
    """

    paper = "DEL: Context-Aware Dynamic Exit Layer for Efficient Self-Speculative Decoding (Entezari Zarch et al. 2025)"
    needs = frozenset({Cap.LAYERS, Cap.HIDDEN})
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"every": 1, "max": 2, "pause": 1},)
    every: int = 3
    max: int = 17
    decay: float = 0.95
    pause: int = 4
    head: float | None = None
    exits: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.every, self.max, self.pause) < 1 or not 0 < self.decay <= 1 or (self.head or 0) < 0:
            raise ValueError(
                "del needs every, max and pause >= 1, 0 < decay <= 1 and head >= 0, "
                f"not every={self.every}, max={self.max}, pause={self.pause}, decay={self.decay}, head={self.head}"
            )

    def bind(self, model: Model) -> Self:
        last, self._depth, self._logits = model.depth - 1, model.depth, model.logits
        self._exits = self.exits or tuple(range(min(self.every, last), model.depth, self.every))
        if not all(1 <= exit <= last for exit in self._exits):
            raise ValueError(f"del: this model can be left after 1 to {last} layers, not {list(self._exits)}")
        return self

    @property
    def want(self) -> Want:
        """The states at every exit, of the prompt's tokens too."""
        return Want(frozenset(exit - 1 for exit in (*self._exits, self._depth)), trunk=True)

    def begin(self, session: Session, laws: Laws) -> None:
        self._shadows = {exit: Shadow() for exit in self._exits}
        self._passes, self._length, self._threshold = 0, 1, 0.0
        self._invited = self._studied = False
        self._variant = through(range(self._exits[0]))
        super().begin(session, laws)

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        tree, node = self.empty(Scheme.IID), ROOT
        self._invited = budget.nodes > 0
        for _ in range(min(self._length, *budget) if self.ready(session) else 0):
            (q,) = yield from self.after(session, tree, [node])
            if q is None:
                break
            node, chance, _ = self.draw(tree, node, q, rng)
            if chance < self._threshold:
                break
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        self._session.follow(session)
        self._passes += 1
        if not self._invited or (self._length == 0 and self._passes % self.pause):
            return  # what is not asked for, or hardly pays, is not studied either
        if not self._studied:
            self._study_prompt(session)
            self._studied = True
        # Behind a refused draft every layer saw a text that is none, so the rows end with the accepted path.
        rows = [0, *(row for node in step.verdict.path if (row := step.rows.at(node)) is not None)]
        states = [step.rows.hidden[exit - 1][rows] for exit in self._exits]
        paths = [step.rows.paths[row] for row in rows]
        self._study(step.rows.context, paths, session.prompt, states, [step.p.best[row] for row in rows])
        self._choose(session)

    def _study_prompt(self, session: Session) -> None:
        """Look at the last positions of the prompt, whose states the pass that read it has left."""
        start, end = max(1, session.prompt - PROMPT), session.prompt
        states = [session.states(exit - 1, start - 1, end) for exit in (*self._exits, self._depth)]
        context, paths = session.tokens[:start], [tuple(session.tokens[start:i]) for i in range(start, end + 1)]
        target = self._laws(Rows(self._logits(states.pop()), context, paths, prompt=session.prompt)).best
        self._study(context, paths, session.prompt, states, target)

    def _study(
        self,
        context: Sequence[int],
        paths: Sequence[tuple[int, ...]],
        prompt: int,
        states: Sequence[Tensor],
        best: Sequence[int | None],
    ) -> None:
        """Compare every exit's guess behind these paths with the target's; ``states``: ``[paths, d]`` for each exit."""
        logits = self._logits(torch.cat(list(states)))
        # A layer has about 12 d^2 weights, the head V d: in a small network with a large vocabulary it costs several layers.
        self._head = logits.shape[-1] / (12 * states[0].shape[-1]) if self.head is None else self.head
        for shadow, part in zip(self._shadows.values(), torch.split(logits, len(paths)), strict=True):
            chances, tokens = self._laws(Rows(part, context, paths, prompt=prompt)).logits.softmax(-1).max(-1)
            hits = tokens == tokens.new_tensor([-1 if target is None else target for target in best])
            shadow.add(self.decay, chances[hits], chances[~hits])

    def _choose(self, session: Session) -> None:
        rates = {exit: shadow.rate for exit, shadow in self._shadows.items()}
        exit, self._length, _ = best(rates, self._depth, self.max, self._head)
        self._threshold = self._shadows[exit].threshold
        if (variant := through(range(exit))) != self._variant:
            self._session.close()
            self._variant = variant
            self._session = self.open(session)
