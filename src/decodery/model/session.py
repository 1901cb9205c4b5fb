"""A committed trunk of tokens over an arena, and the one forward that serves many sessions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from decodery.core.tree import EMPTY, ROOT, TokenTree
from decodery.core.values import LOGITS, Companion, Rows, Want
from decodery.model.arena import Answer, Arena, Feed, Handle
from decodery.model.variant import Half, LayerSet, Shared

CHUNK = 256
"""Longest stretch of pending tokens in one forward; only the last stretch carries the tree."""


class Ask(NamedTuple):
    """A program's wish for one pass over a session's pending tokens and a tree."""

    session: Session
    tree: TokenTree = EMPTY
    want: Want = LOGITS


class Session:
    """Committed tokens, the nodes that hold them, and the nodes of the last pass until they are committed or refused.

    ``tokens`` is everything committed; those past ``cached`` are pending: the next ``forward`` feeds them together with
    its tree. So prefill, the bonus token and forced tokens are one case. With ``layers``, what follows the prompt (the
    first ``prompt`` tokens; by default all there are) goes through these only; the prompt goes through all.
    """

    def __init__(
        self,
        arena: Arena,
        tokens: Sequence[int] = (),
        *,
        prompt: int | None = None,
        layers: Iterable[int | Half | Shared] | None = None,
    ) -> None:
        self.arena = arena
        self.tokens: list[int] = list(tokens)
        self.prompt = len(self.tokens) if prompt is None else prompt
        self.layers: LayerSet | None = None if layers is None else frozenset(layers)
        self.companions: dict[str, Session] = {}
        self._trunk: list[Handle] = []
        self._scratch: dict[tuple[Handle, int], Handle] = {}
        self._borrows = False
        """Whether it is a view: the cache of its text is another session's."""
        self._views: list[Session] = []

    @property
    def cached(self) -> int:
        """How many committed tokens the cache holds."""
        return len(self._trunk)

    @property
    def head(self) -> Handle:
        """The deepest committed node in the cache; ``ROOT`` while there is none."""
        return self._trunk[-1] if self._trunk else ROOT

    @property
    def through(self) -> LayerSet | None:
        """The layers of the next pass. A view has the prompt from the session below it, and goes its own way."""
        prompts = not self._borrows and min(self.cached, len(self.tokens) - 1) < self.prompt
        return None if prompts else self.layers

    @property
    def bears(self) -> bool:
        """Whether the next pass may carry a tree; not if the prompt is due and goes through other layers than the tree."""
        return self.through == self.layers

    def forward(self, tree: TokenTree = EMPTY, want: Want = LOGITS) -> Rows:
        """One pass over pending tokens and tree; the rows after the last committed token and after each live node."""
        return forward([Ask(self, tree, want)])[0]

    def prefill(self) -> None:
        """Feed all pending tokens but the last, so that forks of this session share them."""
        for session in (self, *self.companions.values()):
            session.forget()
            while (waiting := len(session.tokens) - session.cached - 1) > 0:
                _pass([Ask(session)], min(CHUNK, waiting))

    def commit(self, tokens: Sequence[int]) -> None:
        """Append tokens. Those that the last pass saw in this order keep their nodes, the rest become pending; all other
        nodes of the pass are given up."""
        kept = []
        if self.cached == len(self.tokens):
            node = self.head
            for token in tokens:
                if (child := self._scratch.pop((node, token), None)) is None:
                    break
                kept.append(node := child)
        self._grow(kept)
        self.tokens += tokens
        self.forget()
        for companion in self.companions.values():
            companion.commit(tokens)

    def rewind(self, length: int) -> None:
        """Take back committed tokens until ``length`` are left."""
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"cannot rewind to {length}: {len(self.tokens)} tokens are committed")
        for companion in self.companions.values():
            companion.rewind(max(companion.prompt, len(companion.tokens) - len(self.tokens) + length))
        self.forget()
        del self.tokens[length:]
        self.prompt = min(self.prompt, length)
        self._shrink(length)

    def restart(self, tokens: Sequence[int]) -> int:
        """Make ``tokens`` the whole text, keeping the cache of the common beginning; returns how much was kept.

        Companions and views go: they followed another prompt. With fewer ``layers``, the cache of an answer cannot serve
        as that of a prompt.
        """
        self._leave()
        same = 0
        for ours, theirs in zip(
            self.tokens if self.layers is None else self.tokens[: self.prompt], tokens, strict=False
        ):
            if ours != theirs:
                break
            same += 1
        self.rewind(same)
        self.tokens += tokens[same:]
        self.prompt = len(self.tokens)
        return self.cached

    def fork(self) -> Session:
        """A second session over the same nodes; nothing is copied."""
        twin = Session(self.arena, self.tokens, prompt=self.prompt, layers=self.layers)
        twin._trunk = list(self._trunk)
        self.arena.own(twin.head)
        twin.companions = {name: companion.fork() for name, companion in self.companions.items()}
        return twin

    def view(self, *, layers: Iterable[int | Half | Shared]) -> Session:
        """The same text through fewer layers, reading the trunk's cache; its nodes are scratch and never committed."""
        view = Session(self.arena, layers=layers)
        view._borrows = True
        self._views.append(view)
        view.follow(self)
        return view

    def follow(self, session: Session) -> None:
        """Bring the own text to that of ``session``; the usual first line of a drafter that has its own session."""
        if not self._borrows:
            self.prompt, fresh = session.prompt, session.tokens[len(self.tokens) :]
            if session.tokens[: len(self.tokens)] == self.tokens:
                self.commit(fresh)
            else:
                self.restart(session.tokens)
                self.prompt = session.prompt
        else:
            self.forget()
            self._shrink(0)
            self.tokens, self.prompt = list(session.tokens), session.prompt
            self.arena.own(session.head)
            self._trunk = list(session._trunk)

    def grow(self, tree: TokenTree, want: Want = LOGITS) -> Rows:
        """Rows of the nodes of ``tree`` that the last pass has not seen; they stay until the next commit.

        For drafters that deepen a tree level by level. Row 0 exists only in the first pass after a commit.
        """
        at = {ROOT: self.head}
        for node in tree.live():
            at[node] = self._scratch.get((at[tree.parents[node]], tree.tokens[node]), ROOT)
        fresh = [node for node in tree.live() if at[node] == ROOT]
        handles = self.arena.reserve(len(fresh))
        at |= dict(zip(fresh, handles, strict=True))
        parents = [at[tree.parents[node]] for node in fresh]
        tokens = [tree.tokens[node] for node in fresh]
        answer = self.arena.extend(Feed(handles, tokens, parents, handles, want, self.layers))
        self._scratch |= {(p, t): h for p, t, h in zip(parents, tokens, handles, strict=True)}
        index: list[int | None] = [None] * len(tree)
        for row, node in enumerate(fresh):
            index[node] = row
        return Rows(
            answer.logits,
            tuple(self.tokens),
            [tree.words(node) for node in fresh],
            index,
            self.prompt,
            hidden=answer.hidden,
        )

    def accompany(self, companions: dict[str, Companion], arena: Arena | None = None) -> None:
        """Declare the contexts that follow every commit, rewind and fork of this one from now on; earlier ones go."""
        self._leave()
        for name, companion in companions.items():
            tokens, layers = [*companion.prompt, *self.tokens[self.prompt :]], None if arena else self.layers
            self.companions[name] = Session(arena or self.arena, tokens, prompt=len(companion.prompt), layers=layers)

    def close(self) -> None:
        """Give all nodes up."""
        self._leave()
        self.forget()
        self._shrink(0)

    def forget(self) -> None:
        """Give up the nodes of the last pass."""
        self.arena.release(self._scratch.values())
        self._scratch = {}

    def _leave(self) -> None:
        """Close what follows this session."""
        for follower in (*self.companions.values(), *self._views):
            follower.close()
        self.companions, self._views = {}, []

    def _grow(self, handles: Sequence[Handle]) -> None:
        """Take nodes into the trunk; the session owns the deepest only, the others live through it."""
        if handles:
            self.arena.release([self.head, *handles[:-1]])
            self._trunk += handles

    def _shrink(self, length: int) -> None:
        if self.cached > length:
            head = self.head
            del self._trunk[length:]
            self.arena.own(self.head)
            self.arena.release([head])

    def _stretch(self, last: int) -> bool:
        """Whether more pending tokens wait than one pass with ``last`` of them should carry."""
        return len(self.tokens) - self.cached > last or (not self.bears and len(self.tokens) > self.prompt)

    def _feed(self, tree: TokenTree, want: Want, limit: int) -> Feed:
        """Up to ``limit`` pending tokens, and the tree behind them if they are the last."""
        if self.cached == len(self.tokens):
            self._shrink(len(self.tokens) - 1)
        end = len(self.tokens) if self.bears else self.prompt
        pending = self.tokens[self.cached : min(self.cached + limit, end)]
        final = self.cached + len(pending) == len(self.tokens)
        live = tree.live() if final else []
        handles = self.arena.reserve(len(pending) + len(live))
        trunk, nodes = handles[: len(pending)], handles[len(pending) :]
        at = {ROOT: trunk[-1], **dict(zip(live, nodes, strict=True))}
        parents = [self.head, *trunk[:-1], *(at[tree.parents[node]] for node in live)]
        tokens = [*pending, *(tree.tokens[node] for node in live)]
        return Feed(handles, tokens, parents, handles[len(pending) - 1 :] if final else (), want, self.through)

    def _take(self, feed: Feed, pending: int) -> None:
        """Book the nodes of a pass: pending ones join the trunk, the others wait for the commit."""
        self._grow(feed.handles[:pending])
        for handle, token, parent in list(zip(feed.handles, feed.tokens, feed.parents, strict=True))[pending:]:
            self._scratch[parent, token] = handle


def forward(asks: Sequence[Ask]) -> list[Rows]:
    """One forward for many sessions: all pending tokens and all trees. Long pending parts go first, in stretches.

    Sessions over different arenas (other models) take a forward each.
    """
    everyone = []
    for ask in asks:
        if not ask.session.tokens:
            raise ValueError("an empty session has no row to compute: give it at least one token")
        for part in (ask, *(Ask(companion, ask.tree) for companion in ask.session.companions.values())):
            part.session.forget()
            if part.tree.live() and not part.session.bears:
                raise ValueError(
                    "the prompt goes through all layers and drafts through fewer: ask for it without a tree"
                )
            everyone.append(part)
    while long := [ask for ask in everyone if ask.session._stretch(CHUNK)]:
        for members in _groups(long):
            _pass(members)
    rows: dict[int, Rows] = {}
    for members in _groups(everyone):
        rows |= {id(ask.session): row for ask, row in zip(members, _pass(members), strict=True)}
    for ask in asks:
        companions = ask.session.companions
        rows[id(ask.session)].companions = {name: rows[id(companion)] for name, companion in companions.items()}
    return [rows[id(ask.session)] for ask in asks]


def _groups(asks: Sequence[Ask]) -> Iterable[list[Ask]]:
    """Those that one pass can serve: of one arena, through the same layers."""
    groups: dict[tuple[int, LayerSet | None], list[Ask]] = defaultdict(list)
    for ask in asks:
        groups[id(ask.session.arena), ask.session.through].append(ask)
    return groups.values()


def _pass(asks: Sequence[Ask], limit: int | None = None) -> list[Rows]:
    """One extend of one arena, at most ``limit`` pending tokens a session (default: ``CHUNK``)."""
    arena = asks[0].session.arena
    feeds = [ask.session._feed(ask.tree, ask.want, limit or CHUNK) for ask in asks]
    want = LOGITS
    for ask in asks:
        want |= ask.want
    answer = arena.extend(
        Feed(
            [h for feed in feeds for h in feed.handles],
            [t for feed in feeds for t in feed.tokens],
            [p for feed in feeds for p in feed.parents],
            {h for feed in feeds for h in feed.wanted},
            want,
            feeds[0].layers,
        )
    )
    rows, start = [], 0
    for ask, feed in zip(asks, feeds, strict=True):
        live = ask.tree.live() if feed.wanted else []
        ask.session._take(feed, len(feed.handles) - len(live))
        rows.append(_rows(ask, live, answer, slice(start, start := start + len(feed.wanted))))
    return rows


def _rows(ask: Ask, live: Sequence[int], answer: Answer, part: slice) -> Rows:
    index: list[int | None] = [None] * len(ask.tree)
    for row, node in enumerate(live, 1):
        index[node] = row
    return Rows(
        answer.logits[part],
        tuple(ask.session.tokens),
        [(), *(ask.tree.words(node) for node in live)],
        index,
        ask.session.prompt,
        {layer: states[part] for layer, states in answer.hidden.items()},
    )
