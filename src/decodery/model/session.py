"""A text over an arena: its committed tokens, the nodes that hold them, and the tree that grows behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import LOGITS, Cost, Offer, Site, Tensor, Want, common
from decodery.model.arena import Arena, Feed, Handle
from decodery.model.companion import Companion, Opens
from decodery.model.variant import PLAIN, Variant


class Ask(NamedTuple):
    """A program's wish for one pass over a session's pending tokens and a tree.

    ``fresh`` names the nodes of the tree that are new: earlier ones stay in the cache, and rows come for the new ones only.
    None: a new tree, and the nodes of the one before are given up. ``offer``: a planner may cut the tree.
    """

    session: Session
    tree: TokenTree
    want: Want = LOGITS
    fresh: Sequence[int] | None = None
    offer: Offer | None = None


class Session:
    """Committed tokens, the nodes that hold them, and the nodes of the last passes until they are committed or refused.

    ``tokens`` is everything committed; those past ``cached`` are pending: the next pass feeds them together with its tree.
    So prefill, the verifier's own token and forced tokens are one case. The first ``prompt`` tokens (by default all there
    are) go through the whole network, those after them through ``variant`` of it.
    """

    def __init__(
        self, arena: Arena, tokens: Sequence[int] = (), *, prompt: int | None = None, variant: Variant = PLAIN
    ) -> None:
        self.arena = arena
        self.tokens: list[int] = list(tokens)
        self.prompt = len(self.tokens) if prompt is None else prompt
        self.variant = variant
        self.companions: dict[tuple[int, str], tuple[Companion, Session]] = {}
        self.head: Handle = ROOT
        """The deepest committed node in the cache; ``ROOT`` while there is none."""
        self.cached = 0
        """How many committed tokens the cache holds."""
        self.busy = False  # whether an answer is under way on it
        self.spent = Cost()  # of its passes since the last rows
        self._tree = TokenTree()
        self._nodes: dict[int, Handle] = {}
        self._stated: tuple[frozenset[int | Site], int] = frozenset(), 0
        """Places in the network, and for how many committed tokens their states are known to be kept."""

    @property
    def through(self) -> Variant:
        """How the next pass runs the network."""
        return PLAIN if min(self.cached, len(self.tokens) - 1) < self.prompt else self.variant

    def route(self, ask: Ask) -> Variant:
        """How the network runs what is asked for; nodes that are added to a tree stand behind all committed tokens."""
        return self.through if ask.fresh is None else self.variant

    @property
    def can_draft(self) -> bool:
        """Whether the next pass can include a draft tree: not while the prompt is due and drafts would go another way."""
        return self.through == self.variant

    def followers(self) -> list[Session]:
        """The sessions of its companions."""
        return [session for _, session in self.companions.values()]

    def commit(self, tokens: Sequence[int]) -> None:
        """Append tokens. Those that the tree holds in this order keep their nodes, the rest become pending; all other
        nodes of the tree are given up."""
        if self.cached == len(self.tokens):
            node, path = ROOT, []
            for token in tokens:
                if (child := self._tree.child(node, token)) is None or (handle := self._nodes.pop(child, None)) is None:
                    break
                path.append(handle)
                node = child
            self._deepen(path)
        self.tokens += tokens
        self.forget()
        for companion in self.followers():
            companion.commit(tokens)

    def rewind(self, length: int) -> None:
        """Take back committed tokens until ``length`` are left."""
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"cannot rewind to {length}: {len(self.tokens)} tokens are committed")
        for companion in self.followers():
            companion.rewind(max(companion.prompt, len(companion.tokens) - len(self.tokens) + length))
        self.forget()
        del self.tokens[length:]
        self.prompt = min(self.prompt, length)
        self.shrink(length)

    def restart(self, tokens: Sequence[int], prompt: int | None = None) -> int:
        """Make ``tokens`` the whole text, keeping the cache of the common beginning; returns how much was kept.

        Companions go: they followed another prompt. The cache of an answer that went through a variant of the network
        cannot serve as that of a prompt. ``prompt``: how many of the tokens are prompt (default: all).
        """
        self.leave()
        reusable = self.tokens if self.variant == PLAIN else self.tokens[: self.prompt]
        self.rewind(common(reusable, tokens))
        self.tokens += tokens[len(self.tokens) :]
        self.prompt = len(self.tokens) if prompt is None else prompt
        return self.cached

    def follow(self, session: Session) -> None:
        """Bring the own text to that of ``session``; the usual first line of a drafter that has its own session."""
        if common(self.tokens, session.tokens) == len(self.tokens):
            self.prompt = session.prompt
            self.commit(session.tokens[len(self.tokens) :])
        else:
            self.restart(session.tokens, session.prompt)

    def fork(self, at: int = ROOT) -> Session:
        """A second session over the same nodes, which copies nothing; ``at``: its text ends with this node of the tree."""
        twin = Session(self.arena, self.tokens, prompt=self.prompt, variant=self.variant)
        twin.tokens += self._tree.words(at)
        twin.head = self.head if at == ROOT else self._nodes[at]
        twin.cached, twin._stated = self.cached + len(self._tree.path(at)), self._stated
        self.arena.own(twin.head)
        for name, (companion, session) in self.companions.items():
            twin.companions[name] = companion, session.fork(at)
        return twin

    def adopt(self, fork: Session) -> None:
        """Take over the text and the nodes of a fork, which is closed."""
        self.forget()
        self.arena.own(fork.head)
        self.arena.release([self.head])
        self.tokens, self.prompt, self.head, self.cached = list(fork.tokens), fork.prompt, fork.head, fork.cached
        self._stated = fork._stated
        for name, (_, session) in self.companions.items():
            session.adopt(fork.companions[name][1])
        fork.close()

    def beside(self, model: Opens) -> Session:
        """A session of another model for the same request; those of a batch share an arena, so they share passes."""
        other: Session = model.session(arena=self.arena.beside(model))
        return other

    def accompany(self, companions: Mapping[tuple[int, str], Companion]) -> None:
        """Declare the contexts that follow every commit, rewind and fork of this one from now on; earlier ones go."""
        self.leave()
        for name, companion in companions.items():
            if companion.model is None:
                other = Session(self.arena, variant=self.variant if companion.variant == PLAIN else companion.variant)
            else:
                other = self.beside(companion.model)
            other.restart([*companion.prompt, *self.tokens[self.prompt :]], len(companion.prompt))
            self.companions[name] = companion, other

    def keep(self, nodes: Iterable[int]) -> None:
        """Give up the nodes of the tree that are neither among these nor above one of them."""
        kept = {above for node in nodes for above in self._tree.path(node)}
        self.arena.release(handle for node, handle in self._nodes.items() if node not in kept)
        self._nodes = {node: handle for node, handle in self._nodes.items() if node in kept}
        for companion in self.followers():
            companion.keep(kept)

    def states(self, site: int | Site, start: int = 0, stop: int | None = None) -> Tensor:
        """``[stop - start, d]``: what ``want.trunk`` kept of these committed tokens, which must be in the cache."""
        handles = self.arena.lineage(self.head)[start:stop]
        return torch.stack([self.arena.states[handle][site] for handle in handles])

    def forget(self) -> None:
        """Give up the tree."""
        self.arena.release(self._nodes.values())
        self._tree, self._nodes = TokenTree(), {}

    def leave(self) -> None:
        """Close the companions."""
        for companion in self.followers():
            companion.close()
        self.companions = {}

    def close(self) -> None:
        """Give all nodes up."""
        self.leave()
        self.forget()
        self.shrink(0)

    def shrink(self, length: int) -> None:
        """Give up the nodes of committed tokens until ``length`` are left in the cache."""
        if self.cached > length:
            head = self.head
            for _ in range(self.cached - length if length else 0):
                self.head = self.arena.nodes[self.head].parent
            self.head, self.cached = self.head if length else ROOT, length
            self._stated = self._stated[0], min(self._stated[1], length)
            self.arena.own(self.head)
            self.arena.release([head])

    def feed(self, ask: Ask, limit: int, final: bool) -> Feed:
        """Up to ``limit`` pending tokens and, in a ``final`` pass, the new nodes of the tree."""
        end = len(self.tokens) if self.can_draft else self.prompt
        pending = [] if ask.fresh is not None else self.tokens[self.cached : min(self.cached + limit, end)]
        tree = ask.tree
        fresh = (tree.live() if ask.fresh is None else list(ask.fresh)) if final else []
        handles = self.arena.reserve(len(pending) + len(fresh))
        trunk, nodes = handles[: len(pending)], handles[len(pending) :]
        at = {ROOT: trunk[-1] if pending else self.head, **self._nodes, **dict(zip(fresh, nodes, strict=True))}
        parents = [self.head, *trunk][: len(pending)] + [at[tree.parents[node]] for node in fresh]
        tokens = [*pending, *(tree.tokens[node] for node in fresh)]
        wanted = handles[max(len(pending) - 1, 0) :] if final else ()
        return Feed(handles, tokens, parents, wanted, ask.want, self.route(ask))

    def take(self, ask: Ask, feed: Feed, final: bool) -> None:
        """Book the nodes of a pass: pending ones join the trunk, the others wait for the commit."""
        fresh = (ask.tree.live() if ask.fresh is None else list(ask.fresh)) if final else []
        pending = len(feed.handles) - len(fresh)
        self._deepen(feed.handles[:pending])
        self._tree = ask.tree
        self._nodes |= dict(zip(fresh, feed.handles[pending:], strict=True))

    def waits(self, limit: int) -> bool:
        """Whether more pending tokens wait than one pass with ``limit`` of them should carry."""
        return len(self.tokens) - self.cached > limit or (not self.can_draft and len(self.tokens) > self.prompt)

    def prepare(self, want: Want) -> None:
        """Give up the tree, and nodes to be computed (again): a pass has one pending token at least, and lacks no state."""
        self.forget()
        if self.cached == len(self.tokens):
            self.shrink(len(self.tokens) - 1)
        if want.trunk:
            known = self._stated[1] if want.hidden == self._stated[0] else 0
            handle, sound = self.head, self.cached
            for place in range(self.cached, min(known, self.cached), -1):
                if not want.hidden <= self.arena.states.get(handle, {}).keys():
                    sound = place - 1
                handle = self.arena.nodes[handle].parent
            self.shrink(sound)
            self._stated = want.hidden, sound

    def _deepen(self, handles: Sequence[Handle]) -> None:
        """Take nodes into the trunk; the session owns the deepest only, the others live through it."""
        if handles:
            self.arena.release([self.head, *handles[:-1]])
            self.head = handles[-1]
            self.cached += len(handles)
