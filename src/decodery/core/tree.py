"""The tree of guessed tokens: parents first, siblings in the order they were drawn. A chain is a tree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat

from decodery.core.values import Scheme, Tensor

ROOT = -1
"""The parent of the first level: the last committed token."""


@dataclass
class TokenTree:
    """Guessed continuations of the committed text.

    Attributes:
        tokens, parents: one entry a node; a parent is an earlier node or ``ROOT``.
        q: the law ``[V]`` each token was drawn from given its earlier siblings, or None for a certain node.
        ghost: nodes that are not forwarded but still refused by the verifier. Deleting a *drawn* node instead would bias
            the output; certain nodes may simply be left out.
        scheme: how siblings were chosen.
        kinds: the drafter's hint which guesses are alike (the length of a match, say), so that a planner can tell the
            likely from the unlikely. Of drawn nodes it must not depend on the tokens drawn.
        settled: the shape of the tree did not depend on what was drawn, so a planner may cut it by its shape. Cutting
            any other drawn tree would mean to look at drawn tokens.
        ripens: for drafters whose nodes pay off only in later steps (lookahead windows, PEARL blocks): how many
            consecutive trees a planner must average before it may judge them. 1: each tree is judged alone. Trees with
            more are never cut.
        keen: the drafter wants to be asked at the next step as well, though it may have nothing now: it knows by itself
            when it has.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    q: list[Tensor | None] = field(default_factory=list)
    ghost: list[bool] = field(default_factory=list)
    scheme: Scheme = Scheme.CERTAIN
    settled: bool = False
    ripens: int = 1
    keen: bool = False
    depths: list[int] = field(default_factory=list)
    """1 for the first level."""
    kinds: list[Hashable] = field(default_factory=list, compare=False)
    _below: dict[int, list[int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def chain(cls, tokens: Iterable[int], kind: Hashable = 0) -> TokenTree:
        """A certain chain."""
        tree, node = cls(), ROOT
        for token in tokens:
            node = tree.add(token, node, kind=kind)
        return tree

    @classmethod
    def trie(cls, paths: Iterable[Sequence[int]], nodes: int, kinds: Iterable[Hashable] = ()) -> TokenTree:
        """Certain paths, shared beginnings stored once, until ``nodes`` nodes are there; earlier paths go first."""
        tree = cls()
        child: dict[tuple[int, int], int] = {}
        for path, kind in zip(paths, chain(kinds, repeat(0)), strict=False):
            node = ROOT
            for token in path:
                if (node, token) not in child:
                    if len(tree) >= nodes:
                        return tree
                    child[node, token] = tree.add(token, node, kind=kind)
                node = child[node, token]
        return tree

    def __len__(self) -> int:
        return len(self.tokens)

    def graft(
        self, other: TokenTree, nodes: Iterable[int] | None = None, law: Callable[[int], Tensor | None] | None = None
    ) -> dict[int, int]:
        """Merge another tree into this one, shared beginnings stored once; returns where its nodes stand here.

        ``nodes``: which ones, parents first (default: all). ``law``: the q of an added node, by its token (default: it is
        certain). What stood here before keeps its q and its place among its siblings.
        """
        at = {ROOT: ROOT}
        for node in range(len(other)) if nodes is None else nodes:
            token, parent = other.tokens[node], at[other.parents[node]]
            same = self.child(parent, token)
            at[node] = self.add(token, parent, law and law(token)) if same is None else same
        del at[ROOT]
        return at

    def add(self, token: int, parent: int = ROOT, q: Tensor | None = None, *, kind: Hashable = 0) -> int:
        """Append a node and return its index. A repeated sibling can only be refused, so it becomes a ghost."""
        if not ROOT <= parent < len(self):
            raise ValueError(f"parent {parent} of node {len(self)} is not an earlier node")
        repeated = self.child(parent, token) is not None
        self._below.setdefault(parent, []).append(len(self))
        self.depths.append(1 if parent == ROOT else self.depths[parent] + 1)
        self.tokens.append(int(token))
        self.parents.append(parent)
        self.q.append(q)
        self.kinds.append(kind)
        self.ghost.append(repeated or (parent != ROOT and self.ghost[parent]))
        return len(self) - 1

    def children(self, node: int) -> list[int]:
        """The node's children in drawing order, ghosts included."""
        return self._below.get(node, [])

    def child(self, node: int, token: int) -> int | None:
        """The first child of a node with this token: of repeated siblings the one that is forwarded."""
        return next((child for child in self.children(node) if self.tokens[child] == token), None)

    def path(self, node: int) -> list[int]:
        """Nodes from the first level down to ``node``."""
        path = []
        while node != ROOT:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def words(self, node: int) -> tuple[int, ...]:
        """The tokens from the first level down to ``node``."""
        return tuple(self.tokens[i] for i in self.path(node))

    def live(self) -> list[int]:
        """The nodes to forward: all but ghosts."""
        return [i for i, ghost in enumerate(self.ghost) if not ghost]

    def haunt(self, node: int) -> None:
        """Make a node and all below it ghosts."""
        self.ghost[node] = True
        for i in range(node + 1, len(self)):
            if self.parents[i] != ROOT and self.ghost[self.parents[i]]:
                self.ghost[i] = True

    def only(self, nodes: Iterable[int]) -> TokenTree:
        """These nodes; each one's parent, and where siblings were drawn the earlier ones, must be among them."""
        chosen = sorted(nodes)
        if len(chosen) == len(self):
            return self
        tree, place = TokenTree(scheme=self.scheme, settled=self.settled, ripens=self.ripens), {ROOT: ROOT}
        for node in chosen:
            place[node] = tree.add(self.tokens[node], place[self.parents[node]], self.q[node], kind=self.kinds[node])
            tree.ghost[place[node]] = self.ghost[node]
        return tree
