"""Lookahead decoding: a window of Jacobi trajectories makes n-grams, and those that fit are guessed.

Both branches of the paper are one token tree, and its mask is that of the tree. The oldest tokens of all columns are a
chain below the text, each column's younger tokens a chain below its oldest one; the first column's oldest token is the
text's last, as in the authors' code. N-grams of the pool are branches below the text. As in that code the window moves by
one place a step, however many tokens were accepted.

What differs: where branches agree they share nodes; the window's tokens may be accepted as well; its new tokens are the
likeliest under the guides and the constraint; it starts from the prompt's last tokens instead of random ones; in the
first n - 2 steps, while columns grow to their length, they go along with the text; an end of sequence in it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter, Laws
from decodery.core.step import Step
from decodery.core.tree import TokenTree
from decodery.core.values import Budget
from decodery.draft.lib.window import rows_along
from decodery.model.session import Session

GUESS = 1
"""The kind of a node that comes from the pool; the window's are 0."""


@dataclass
class Lookahead(Drafter):
    """Runs ``window`` Jacobi trajectories beside the text, pools the n-grams they pass through, and drafts those that fit.

    ``n``: tokens of an n-gram. ``guesses``: how many n-grams are kept for a first token, and drafted. ``prompt``: also pool
    the prompt's n-grams. ``pool``: first tokens remembered, those learnt last. Costs about ``(window + guesses) * (n - 1)``
    nodes a step; the paper takes window=15, n=5, guesses=15 on a GPU. The pool takes 200 to 250 bytes an n-gram,
    ``250 * pool * guesses`` (4 MB) at most, and goes with the request. Needs plan="off" or a plan of enough nodes: the window
    pays in later steps, and "auto" keeps only what pays in this one.
    """

    paper = "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding (Fu et al. 2024), algorithm 2"
    specimens = ({"window": 2, "n": 3, "guesses": 2}, {"window": 2, "n": 2, "guesses": 2, "prompt": False})
    window: Annotated[int, Ge(1)] = 4
    n: Annotated[int, Ge(2)] = 4
    guesses: Annotated[int, Ge(1)] = 4
    prompt: bool = True
    pool: Annotated[int, Ge(1)] = 4096

    def begin(self, session: Session, laws: Laws) -> None:
        self._pool: dict[int, list[tuple[int, ...]]] = {}
        if self.prompt:
            for start in range(len(session.tokens) - self.n + 1):
                self._learn(session.tokens[start : start + self.n])
        # A column is a trajectory: its oldest token first, up to n - 1 of them, each guessed one pass later and one place
        # further than the one before. The paper starts from random tokens; these need no random number.
        last = session.tokens[-self.window :]
        self._columns = [[last[i % len(last)]] for i in range(self.window)]

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        last = session.tokens[-1]
        self._columns[0][0] = last  # the first trajectory starts at the text itself
        paths = [tail[: budget.depth] for tail in reversed(self._pool.get(last, []))]
        kinds = [GUESS] * len(paths)
        # A column that is cut teaches nothing, so only whole ones are sent.
        room = (budget.nodes - len(TokenTree.trie(paths, budget.nodes)) + 1) // (self.n - 1)
        window = [self._path(i) for i in range(min(self.window, room))]
        return TokenTree.trie([*paths, *(p for p in window if len(p) <= budget.depth)], budget.nodes, kinds)

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        paths = [tuple(self._path(i)) for i in range(self.window)]
        for column, path in zip(self._columns, paths, strict=True):
            rows = rows_along(step, path)
            if len(rows) <= len(path) or (new := step.p.best[rows[-1]]) is None:
                continue  # a column that was not forwarded to its end stays as it is
            column.append(new)
            if len(column) == self.n:
                self._learn(column)
                del column[0]

    def _path(self, i: int) -> list[int]:
        """What stands between the text and the end of a column: the oldest tokens up to its own, then its younger ones.

        These are all that the paper's mask lets the column's last token see, so the window is a token tree.
        """
        return [column[0] for column in self._columns[1 : i + 1]] + self._columns[i][1:]

    def _learn(self, ngram: list[int]) -> None:
        """Keep an n-gram as the latest of its first token, in place of the oldest."""
        first, tail = ngram[0], tuple(ngram[1:])
        tails = self._pool.pop(first, [])
        self._pool[first] = [*(t for t in tails if t != tail), tail][-self.guesses :]
        if len(self._pool) > self.pool:
            del self._pool[next(iter(self._pool))]
