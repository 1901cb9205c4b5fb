"""The text of a session seen through a variant of the network."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.core.tree import ROOT
from decodery.model.session import Session
from decodery.model.variant import Variant


class View(Session):
    """Reads another session's cache; its own nodes run through ``variant``, and ``follow`` gives them up.

    ``length``: how much of the text it sees, all of it by default. What is committed to a view is its own affair.
    """

    def __init__(self, base: Session, variant: Variant, length: int | None = None) -> None:
        super().__init__(base.arena, variant=variant)
        self.follow(base)
        if length is not None:
            self.tokens = base.tokens[:length]
            self.shrink(min(self.cached, length))

    @property
    def through(self) -> Variant:
        """How the next pass runs the network: the prompt is the base's, so the view goes its own way."""
        return self.variant

    def follow(self, session: Session) -> None:
        """See the text that ``session`` has now; what the view computed itself is given up. Nothing is copied."""
        self.forget()
        self.arena.own(session.head)
        self.arena.release([self.head])
        self.tokens, self.prompt = session.tokens, session.prompt
        self.head, self.cached = session.head, session.cached

    def commit(self, tokens: Sequence[int]) -> None:
        """Append tokens to what this view sees."""
        self.tokens = list(self.tokens)
        super().commit(tokens)

    def rewind(self, length: int) -> None:
        """See less of the text."""
        self.tokens = list(self.tokens)
        super().rewind(length)

    def close(self) -> None:
        """Give all nodes up; the text is the base's and stays."""
        self.forget()
        self.arena.release([self.head])
        self.tokens, self.head, self.cached = [], ROOT, 0
