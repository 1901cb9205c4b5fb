"""Many texts that share their beginnings, advanced together: what a search keeps in the arena."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.core.values import Rows, Want
from decodery.model.arena import Feed
from decodery.model.session import Session


class Frontier:
    """The leaves of many texts over one trunk, and of its companions; a row each, in the order of the last ``grow``."""

    def __init__(self, session: Session, want: Want) -> None:
        self.session, self.want = session, want
        self._contexts = [session, *session.companions.values()]
        self._leaves = [[context.head] for context in self._contexts]
        for context in self._contexts:
            context.arena.own(context.head)

    def grow(self, parents: Sequence[int], paths: Sequence[tuple[int, ...]]) -> Rows:
        """Rows after ``paths``, which are all tokens behind the trunk; each but its last is the leaf ``parents`` names.

        One forward of each arena. Leaves that nobody named are given up.
        """
        rows: dict[int, Rows] = {}
        for arena in dict.fromkeys(context.arena for context in self._contexts):
            ours = [i for i, context in enumerate(self._contexts) if context.arena is arena]
            handles = arena.reserve(len(ours) * len(parents))
            above = [self._leaves[i][parent] for i in ours for parent in parents]
            tokens, layers = [path[-1] for path in paths] * len(ours), self._contexts[ours[0]].layers
            answer = arena.extend(Feed(handles, tokens, above, handles, self.want, layers))
            for nth, i in enumerate(ours):
                part = slice(nth * len(parents), (nth + 1) * len(parents))
                arena.release(self._leaves[i])
                self._leaves[i] = list(handles[part])
                hidden = {layer: states[part] for layer, states in answer.hidden.items()}
                context = self._contexts[i]
                rows[i] = Rows(answer.logits[part], tuple(context.tokens), paths, (), context.prompt, hidden)
        rows[0].companions = {name: rows[i] for i, name in enumerate(self.session.companions, 1)}
        return rows[0]

    def close(self) -> None:
        """Give all leaves up."""
        for context, leaves in zip(self._contexts, self._leaves, strict=True):
            context.arena.release(leaves)
            leaves.clear()
