"""RAPID's drafter: the draft model reads a retrieved short context instead of the long prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from decodery.core.chooser import Chooser
from decodery.core.part import Asking, Model
from decodery.core.roles import Laws
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Budget, Scheme, common
from decodery.draft.lib.draft_model import Drawn
from decodery.model.session import Session


@dataclass
class RapidDraft(Drawn):
    """Draws a chain from a model that reads only the chunks of the prompt that resemble its end, and that end.

    ``length``: tokens in the chain. ``chunk``: tokens in a chunk of the prompt. ``keep``: how many chunks are kept, in
    their order; ranked by TF-IDF cosine over token ids. ``query``: tokens at the end of the prompt, which the chunks are
    compared with and which are always kept. ``path``: another model with the target's vocabulary; empty: the target
    itself. A prompt no longer than what would be kept is read whole; the target itself then drafts nothing, for it would
    only do its own work twice. Memory: a cache of its own for the short text. It pays where reading the target's long
    cache is what a pass costs.
    """

    paper = "Long-Context Inference with Retrieval-Augmented Speculative Decoding (Chen et al. 2025)"
    emits = frozenset({Scheme.CERTAIN, Scheme.IID})
    specimens = (
        {"length": 2, "chunk": 1, "keep": 1, "query": 1},
        {"length": 2, "chunk": 1, "keep": 1, "query": 1, "path": "toy"},
    )
    length: int = 10
    chunk: int = 512
    keep: int = 8
    query: int = 128
    path: object = ""

    def __post_init__(self) -> None:
        if min(self.length, self.chunk, self.keep, self.query) < 1:
            raise ValueError(
                f"rapid needs length, chunk, keep and query >= 1, not length={self.length}, chunk={self.chunk}, "
                f"keep={self.keep}, query={self.query}"
            )

    def bind(self, model: Model) -> Self:
        self._model = model.companion(self.path) if self.path else model
        return self

    def open(self, session: Session) -> Session:
        return session.beside(self._model)

    def begin(self, session: Session, laws: Laws) -> None:
        super().begin(session, laws)
        self._short = shorten(session.tokens[: session.prompt], self.chunk, self.keep, self.query)
        self._rests = not self.path and len(self._short) == session.prompt

    def catch_up(self, session: Session) -> None:
        # Not follow(), which copies the whole text: prompts differ, and so do the positions of the answer.
        text, own = [*self._short, *session.tokens[session.prompt :]], self._session
        if common(own.tokens, text) == len(own.tokens):
            own.prompt = len(self._short)
            own.commit(text[len(own.tokens) :])
        else:
            own.restart(text, len(self._short))

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        # A chain, whatever is drawn: its shape is known before.
        tree, node = self.empty(Scheme.IID, settled=True), ROOT
        while not self._rests and len(tree) < min(self.length, *budget):
            (law,) = yield from self.after(session, tree, [node])
            if law is None:
                break
            node, _, _ = self.draw(tree, node, law, rng)
        return tree


def shorten(prompt: Sequence[int], chunk: int, keep: int, query: int) -> list[int]:
    """The best chunks in their order, then the last ``query`` tokens; the prompt itself where that is no shorter."""
    if len(prompt) <= keep * chunk + query:
        return list(prompt)
    body, end = prompt[:-query], prompt[-query:]
    chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]
    best = sorted(rank(chunks, end)[:keep])
    return [*(token for i in best for token in chunks[i]), *end]


def rank(chunks: Sequence[Sequence[int]], query: Sequence[int]) -> list[int]:
    """Chunks by TF-IDF cosine to the query, the nearest first, the earlier one on ties."""
    # Tokens that the query lacks count in a chunk's norm only, so columns for all tokens of the text are needed.
    texts = [*chunks, query]
    words, flat = np.unique(np.concatenate([np.asarray(text) for text in texts]), return_inverse=True)
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    counts = np.zeros((len(texts), len(words)))
    np.add.at(counts, (rows, flat), 1.0)
    weight = np.log((1 + len(chunks)) / (1 + (counts[:-1] > 0).sum(0))) + 1.0
    counts *= weight
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    likeness = counts[:-1] @ counts[-1]
    return [int(i) for i in np.argsort(-likeness.round(12), kind="stable")]
