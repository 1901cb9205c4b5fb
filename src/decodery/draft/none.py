"""No draft: plain decoding."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.core.chooser import Chooser
from decodery.core.roles import Drafter
from decodery.core.tree import TokenTree
from decodery.core.values import Budget, Scheme
from decodery.model.session import Session


@dataclass
class NoDraft(Drafter):
    """Guesses nothing, so every forward gives one token."""

    emits = frozenset[Scheme]()

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        return TokenTree()
