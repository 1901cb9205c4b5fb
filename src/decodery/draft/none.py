"""No draft: plain decoding."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.model.session import Session
from decodery.tree import TokenTree
from decodery.words import Budget, Chooser, Drafter


@dataclass
class NoDraft(Drafter):
    """Guesses nothing, so every forward gives one token."""

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        return TokenTree()
