"""PEARL: the draft model writes on while the target judges what it wrote before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from decodery.core.chooser import Chooser
from decodery.core.errors import PartsClash
from decodery.core.part import Model
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme
from decodery.draft.lib.block import Block, Drawn
from decodery.model.session import Session

RIPENS = 5
"""Passes after which it shows what blocks bring, those that only open one included."""


@dataclass
class Pearl(Drafter):
    """Drafts a block of ``gamma`` tokens in a thread while the target judges the block before, assuming that it is accepted.

    While all is accepted, each pass commits ``gamma`` tokens and nobody waits (post-verify). Otherwise what was written ahead
    is dropped, and the next pass has no draft: while it yields a single token, a new block is written, kept where it
    begins with that token (pre-verify). ``path``: the draft model; of the target's own network only another model
    (fewer layers, say), and then nothing overlaps, for such passes run alone. ``overlap``:
    False writes before the pass instead of beside it, with the same result. Where tokens are sampled, the first token
    of a block is not put to the paper's test with ``min(1, p/q)``: the verifier draws its own, and the block is kept if
    that is the likeliest of the draft's law.
    """

    paper = "PEARL: Parallel Speculative Decoding with Adaptive Draft Length (Liu et al. 2025)"
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = ({"path": "toy", "gamma": 2}, {"path": "toy", "gamma": 3, "overlap": False})
    path: object = ""
    gamma: int = 4
    overlap: bool = True

    def __post_init__(self) -> None:
        if self.gamma < 2:
            raise ValueError(f"pearl needs gamma >= 2, not {self.gamma}: the first token of a block only opens it")

    def bind(self, model: Model) -> Self:
        if not self.path:
            raise PartsClash(
                "draft part 'pearl' drafts while the target runs, so it cannot run the target with fewer layers, whose "
                "cache and network are in use: give path=, or take draft=model"
            )
        self._model = model.companion(self.path)
        if self._model is model:
            raise PartsClash(
                "draft part 'pearl' drafts while the target runs, so its model must not be the target itself: load it "
                "a second time, or take draft=model"
            )
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        self._laws, self._session = laws.alone(), self._model.session()
        self._ahead: list[Drawn] = []
        """Drafts that continue the committed text; those of the tree first."""
        self._block: Block | None = None

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        # Settled: whether these drafts are still there was told by committed tokens, never by the drafts themselves.
        # And a pass without a draft opens a block: no plan should take it for a loss.
        scheme = Scheme.CERTAIN if self._laws.greedy else Scheme.IID
        tree, node = TokenTree(scheme=scheme, settled=True, ripens=RIPENS), ROOT
        for token, q in self._ahead[: min(budget)]:
            node = tree.add(token, node, q)
        waiting = len(self._ahead) - len(tree)
        length = min(self.gamma - waiting, budget.depth - len(self._ahead))
        self._block = None
        if length > 1:
            words = [*session.tokens, *(token for token, _ in self._ahead)]
            self._block = Block(self, self._session, words, session.prompt, length, self._laws, rng.fork())
            run = self._block.start if self.overlap else self._block.run
            run()
        return tree

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        if self._block is not None:
            self._block.dropped = not _agree([*self._ahead, *self._block.drawn], step.tokens)
            self._ahead += self._block.collect()
        tree, end = step.tree, step.verdict.path[-1] if step.verdict.path else ROOT
        # Should a verifier draw as its own what it refused as a draft, the drafts behind that one are no fresh draws any
        # more: they were judged along with it.
        judged = any(tree.tokens[child] in step.verdict.extra for child in tree.children(end))
        stands = _agree(self._ahead, step.tokens) and not judged
        self._ahead = self._ahead[len(step.tokens) :] if stands else []

    def end(self, session: Session) -> None:
        if self._block is not None:
            self._block.dropped = True


def _agree(drawn: Sequence[Drawn], tokens: Sequence[int]) -> bool:
    """Whether drafts and text are the same as far as both go."""
    return all(draft == token for (draft, _), token in zip(drawn, tokens, strict=False))
