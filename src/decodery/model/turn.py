"""One turn: what many sessions ask for, in as few passes of the network as can serve them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

from decodery.core.tree import TokenTree
from decodery.core.values import LOGITS, Cost, Rows, Want
from decodery.model.arena import Answer, Feed
from decodery.model.session import Ask, Session
from decodery.model.variant import Variant

CHUNK = 384
"""Longest stretch of pending tokens in one pass; only the last stretch carries the tree."""


class Joint(Protocol):
    """A planner that sees all trees of a pass at once."""

    def cut(self, asks: Sequence[Ask]) -> list[Sequence[int] | None]:
        """For each ask the nodes of its tree to forward, parents first; None: all."""

    def observe(self, positions: int, seconds: float, prefill: bool) -> None:
        """A pass of so many positions took this long; ``prefill``: it read a stretch of a text too."""


class _Family(NamedTuple):
    """An ask and those of the companions, which are answered together."""

    members: list[Ask]
    kept: Sequence[int] | None = None


def turn(asks: Sequence[Ask], joint: Joint | None = None) -> list[Rows | Exception | None]:
    """Run one stretch of each long text, and the pass of every ask whose text is short enough by now.

    So a long prompt does not hold the others up. Answers in the order of the asks: rows, None where the text needs another
    turn, or what the pass raised. Sessions over one arena that run the network alike share a pass.
    """
    families = [_family(ask) for ask in asks]
    ready = [not any(member.session.waits(CHUNK) for member in family.members) for family in families]
    long = [m for family, is_ready in zip(families, ready, strict=True) if not is_ready for m in family.members]
    failed = _run([member for member in long if member.session.waits(CHUNK)], final=False)
    now = [i for i, is_ready in enumerate(ready) if is_ready]
    for i, kept in zip(now, joint.cut([asks[i] for i in now]) if joint else [None] * len(now), strict=True):
        if kept is not None:
            tree = asks[i].tree.only(kept)
            families[i] = _Family([member._replace(tree=tree) for member in families[i].members], kept)
    found = _run([member for i in now for member in families[i].members], final=True, joint=joint)
    return [_answer(family, found | failed, is_ready) for family, is_ready in zip(families, ready, strict=True)]


def answered(asks: Sequence[Ask]) -> list[Rows]:
    """The rows of these asks, turn after turn until all are there; raises what a pass raises."""
    found: dict[int, Rows] = {}
    while len(found) < len(asks):
        left = [i for i in range(len(asks)) if i not in found]
        for i, answer in zip(left, turn([asks[i] for i in left]), strict=True):
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                found[i] = answer
    return [found[i] for i in range(len(asks))]


def forward(
    session: Session, tree: TokenTree | None = None, want: Want = LOGITS, fresh: Sequence[int] | None = None
) -> Rows:
    """The rows of one ask alone; programs yield their asks instead, so that many can share a pass."""
    return answered([Ask(session, TokenTree() if tree is None else tree, want, fresh)])[0]


def _family(ask: Ask) -> _Family:
    companions = ask.session.companions.values()
    members = [ask, *(Ask(session, ask.tree, c.want, ask.fresh) for c, session in companions)]
    for member in members:
        if not member.session.tokens:
            raise ValueError("an empty session has no row to compute: give it at least one token")
        if member.fresh is None:
            member.session.prepare(member.want)
        elif member.session.cached < len(member.session.tokens):
            raise ValueError("new nodes of a tree were asked for before the committed text was computed")
        if member.tree.live() and member.session.route(member) != member.session.variant:
            raise ValueError("the prompt goes through all layers and drafts through fewer: ask for it without a tree")
    return _Family(members)


def _answer(family: _Family, found: dict[int, Rows | Exception], ready: bool) -> Rows | Exception | None:
    answers = [found.get(id(member.session)) for member in family.members]
    if error := next((answer for answer in answers if isinstance(answer, Exception)), None):
        return error
    if not ready:
        return None
    rows, *others = (answer for answer in answers if isinstance(answer, Rows))
    companions = family.members[0].session.companions
    rows.companions = dict(zip(companions, others, strict=True))
    own, extra = rows.cost, [other.cost for other in others]
    seconds = own.seconds + sum(cost.seconds for cost in extra)
    rows.cost = Cost(seconds, own.passes, own.positions, sum(cost.passes for cost in extra))
    rows.kept = family.kept
    return rows


def _run(asks: Sequence[Ask], final: bool, joint: Joint | None = None) -> dict[int, Rows | Exception]:
    """The passes of these asks; where a pass of several raises, each is tried alone, so that one does not fail the others."""
    found: dict[int, Rows | Exception] = {}
    groups: dict[tuple[int, Variant], list[Ask]] = defaultdict(list)
    for ask in asks:
        groups[id(ask.session.arena), ask.session.route(ask)].append(ask)
    for group in groups.values():
        try:
            found |= _pass(group, final, joint)
        except Exception as error:
            if len(group) == 1:
                found[id(group[0].session)] = error
            else:
                for ask in group:
                    found |= _run([ask], final, joint)
    return found


def _pass(asks: Sequence[Ask], final: bool, joint: Joint | None) -> dict[int, Rows | Exception]:
    """One extend of one arena."""
    start = perf_counter()
    feeds = [ask.session.feed(ask, CHUNK, final) for ask in asks]
    answer = asks[0].session.arena.extend(_joined(feeds, (ask.want for ask in asks)))
    seconds, positions = perf_counter() - start, sum(len(feed.handles) for feed in feeds)
    if joint is not None:
        pending = sum(len(feed.handles) - len(ask.tree.live()) for ask, feed in zip(asks, feeds, strict=True))
        joint.observe(positions, seconds, prefill=pending > len(asks))
    rows: dict[int, Rows | Exception] = {}
    row = 0
    for ask, feed in zip(asks, feeds, strict=True):
        session, count = ask.session, len(feed.handles)
        session.take(ask, feed, final)
        session.spent = session.spent.plus(Cost(seconds * count / positions, 1, count))
        if final:
            rows[id(session)] = _rows(ask, feed, answer, slice(row, row := row + len(feed.wanted)))
            session.spent = Cost()
    return rows


def _joined(feeds: Sequence[Feed], wants: Iterable[Want]) -> Feed:
    """All feeds as one."""
    want = LOGITS
    for one in wants:
        want |= one
    return Feed(
        [handle for feed in feeds for handle in feed.handles],
        [token for feed in feeds for token in feed.tokens],
        [parent for feed in feeds for parent in feed.parents],
        {handle for feed in feeds for handle in feed.wanted},
        want,
        feeds[0].variant,
    )


def _rows(ask: Ask, feed: Feed, answer: Answer, part: slice) -> Rows:
    session, tree = ask.session, ask.tree
    nodes = tree.live() if ask.fresh is None else list(ask.fresh)
    root = len(feed.wanted) - len(nodes)
    index: list[int | None] = [None] * len(tree)
    for row, node in enumerate(nodes, root):
        index[node] = row
    return Rows(
        answer.logits[part],
        tuple(session.tokens),
        [*[()] * root, *(tree.words(node) for node in nodes)],
        index,
        session.prompt,
        {site: states[part] for site, states in answer.hidden.items()},
        cost=session.spent,
    )
