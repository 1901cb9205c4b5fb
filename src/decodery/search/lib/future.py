"""What was learnt of a grammar's future: for each beginning, how much of the law behind it can still be grammatical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from decodery.core.law import Law, forbid
from decodery.core.roles import Laws
from decodery.core.step import Step
from decodery.core.values import Rows, Tensor


@dataclass
class Beginning:
    """A node of the trie. ``log_p``: of its token after its parent, as the guides leave it, forbidden tokens included.

    ``c``: the chance that an answer which begins so will be grammatical; it starts at 1 and only shrinks.
    """

    log_p: float = 0.0
    parent: Beginning | None = None
    c: float = 1.0
    seen: bool = False
    after: dict[int, Beginning] = field(default_factory=dict)


@dataclass
class Future:
    """The trie of one prompt, one constraint and one set of guides. Only beginnings that had a row are in it."""

    root: Beginning = field(default_factory=Beginning)

    def find(self, words: Sequence[int]) -> Beginning | None:
        """What is known of the answers that begin so."""
        node: Beginning | None = self.root
        for word in words:
            node = node.after.get(word) if node is not None else None
        return node

    def log_p(self, words: Sequence[int]) -> float:
        """The log-probability (nats) of these tokens under the guided law; each must have been drawn or drafted."""
        return sum(node.log_p for i in range(len(words)) if (node := self.find(words[: i + 1])) is not None)

    def learn(self, step: Step, tokens: Sequence[int]) -> None:
        """Learn from every row of a step, that of refused drafts included. ``tokens``: the answer, with those of the step.

        The logits of ``step.p`` must be log p + log c, as ``Aligned`` makes them: their sum is the new c of the row.
        """
        answer = tuple(tokens)
        known = step.rows.context[step.rows.prompt :]
        paths = [(*known, *path) for path in step.rows.paths]
        wanted = {*paths, *(answer[: len(known) + i] for i in range(1, len(answer) - len(known) + 1))}
        for row, path in enumerate(paths):
            if (node := self.find(path)) is None:
                continue
            logits = step.p.logits[row]
            for token in {one[-1] for one in wanted if one and one[:-1] == path} - node.after.keys():
                node.after[token] = Beginning(float(logits[token]), node)
            if not node.seen:
                node.seen = True
                self._set(node, float(logits.logsumexp(-1).exp()))

    def _set(self, node: Beginning, c: float) -> None:
        """Change the chance of a node, and with it those of all above."""
        above: Beginning | None = node
        change = c - node.c
        while above is not None:
            above.c = max(above.c + change, 0.0)
            change *= math.exp(above.log_p)
            above = above.parent


@dataclass(frozen=True)
class Aligned(Laws):
    """The guided law, of which forbidden tokens are taken away last, times what is known of the future of each token."""

    future: Future = field(default_factory=Future)

    def __call__(self, rows: Rows, masks: Sequence[Tensor | None] = ()) -> Law:
        logits = super().__call__(rows).logits.double().log_softmax(-1)
        forbid(logits, masks)
        known = rows.context[rows.prompt :]
        for row, path in enumerate(rows.paths):
            if (node := self.future.find((*known, *path))) is not None:
                for token, child in node.after.items():
                    logits[row, token] += math.log(child.c) if child.c > 0 else -math.inf
        return Law(logits, self.greedy)
