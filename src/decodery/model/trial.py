"""What decoding does with an arena, in small, compared with passes of the same network without a cache."""

from __future__ import annotations

import copy
import functools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from decodery.core.tree import TokenTree
from decodery.core.values import Tensor
from decodery.model.arena import Arena
from decodery.model.session import Ask, Session
from decodery.model.turn import answered, forward

TOLERANCE = {torch.float32: 5e-3, torch.float64: 1e-5}
"""Largest difference allowed, relative to the spread of the logits."""

SHORT = 9
"""Tokens of a prompt, where no window asks for more."""

BEHIND = 8
"""How many tokens follow the prompt of a trial, single steps aside."""

DRAFT = 4
"""The short drafts of a trial are shorter than this; the shortest has no token."""

TOGETHER = 512
"""How many tokens of several texts go in one pass."""

log = logging.getLogger(__name__)


class Unable(Exception):
    """The network raised an error of its own when it was asked to run."""


@contextmanager
def blamed(network: PreTrainedModel) -> Iterator[None]:
    """Meanwhile the errors that the network's own call raises are ``Unable``; all others are ours, and rise."""
    before, own = network.forward, vars(network).get("forward")

    @functools.wraps(before)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return before(*args, **kwargs)
        except Exception as error:
            log.debug("%s cannot run so", type(network).__name__, exc_info=True)
            raise Unable((f"{type(error).__name__}: {error}".splitlines() or [""])[0]) from error

    network.forward = run
    try:
        yield
    finally:
        del network.forward
        if own is not None:
            network.forward = own


@dataclass
class Seen:
    """Rows of an arena, and the text after which each came."""

    texts: list[list[int]] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    openings: list[int] = field(default_factory=list)
    """How many tokens its session began with."""

    def step(self, *asks: Ask) -> None:
        """One pass; note its rows."""
        for ask, rows in zip(asks, answered(asks), strict=True):
            for row, path in zip(rows.logits, rows.paths, strict=True):
                self.texts.append([*ask.session.tokens, *path])
                self.rows.append(row)
                self.openings.append(ask.session.prompt)


class Words:
    """Random tokens of a network's vocabulary, the same every time; the one for padding only where there are few."""

    def __init__(self, network: PreTrainedModel) -> None:
        config = network.config.get_text_config()
        size, padding = int(config.vocab_size), getattr(config, "pad_token_id", None)
        self._random = random.Random(0)
        self._tokens = range(size)
        self._avoided = padding if size > 8 else None

    def one(self, other: int | None = None) -> int:
        """A token, and another one than ``other``."""
        left = len(self._tokens) > 1
        while (token := self._random.choice(self._tokens)) == self._avoided or (left and token == other):
            pass
        return token

    def some(self, n: int) -> list[int]:
        """``n`` tokens."""
        return [self.one() for _ in range(n)]

    def fork(self) -> TokenTree:
        """Two siblings."""
        tree = TokenTree()
        tree.add(self.one(tree.tokens[tree.add(self.one())]))
        return tree

    def bush(self) -> TokenTree:
        """Two branches, the second one longer; its end comes last."""
        tree = self.fork()
        tree.add(self.one(), 0)
        tree.add(self.one(), tree.add(self.one(), 1))
        return tree


def check(
    network: PreTrainedModel, arena: Callable[[], Arena], length: int = SHORT, steps: int = 0, alone: bool = False
) -> str:
    """Say why an arena's rows are not those of passes without a cache; empty if they are.

    ``length``: of the prompt. ``steps``: how many short drafts follow in the end. ``alone``: compare each row with a pass
    that ends with it, for networks whose rows depend on how long the text of a pass is.
    """
    try:
        with blamed(network):
            seen = _program(arena(), Words(network), length, steps)
            return disagreement(torch.stack(seen.rows), truth(network, seen.texts, alone))
    except Unable as error:
        return str(error)


def dependence(network: PreTrainedModel, arena: Callable[[], Arena], steps: int) -> str:
    """Say whether drafts change the rows of an arena, whatever these are; empty if they do not."""
    try:
        with blamed(network):
            seen = _program(arena(), Words(network), SHORT, steps)
            for text, row, opening in zip(seen.texts, seen.rows, seen.openings, strict=True):
                session = Session(arena(), text[:opening])
                plain = forward(session).logits
                for token in text[opening:]:
                    session.commit([token])
                    plain = forward(session).logits
                if reason := disagreement(row[None], plain):
                    return f"drafts change its rows ({reason})"
    except Unable as error:
        return str(error)
    return ""


def _program(arena: Arena, words: Words, length: int, steps: int) -> Seen:
    """Two texts in one arena: trees, a draft taken to its end, one refused, freed slots used again in another order."""
    seen, prompt = Seen(), words.some(length)
    one, two = Session(arena, prompt[: length // 2]), Session(arena, words.some(2))
    seen.step(Ask(one, TokenTree()))
    one.commit(prompt[length // 2 :])
    bush, fork = words.bush(), words.fork()
    seen.step(Ask(two, fork), Ask(one, bush))
    # What follows the branch taken, which ended last, goes to slots that others have left in front of it.
    one.commit([bush.tokens[1], *bush.tokens[3:], words.one()])
    two.commit([fork.tokens[1], words.one()])
    seen.step(Ask(one, words.bush()), Ask(two, words.fork()))
    for i in range(steps):
        one.commit(words.some(1))
        seen.step(Ask(one, draft := TokenTree.chain(words.some(i % DRAFT))))
        one.commit(draft.tokens)
    for session in (one, two):
        session.close()
    return seen


@torch.inference_mode()
def truth(network: PreTrainedModel, texts: Sequence[Sequence[int]], alone: bool = False) -> Tensor:
    """The row after each text, without a cache; one pass serves all beginnings of a text, unless they stay ``alone``."""
    wanted = list(dict.fromkeys(map(tuple, texts)))
    whole = [t for t in wanted if alone or not any(t == other[: len(t)] for other in wanted if len(other) > len(t))]
    longest = max(map(len, whole))
    together = not alone and longest * len(whole) <= TOGETHER
    rows: dict[tuple[int, ...], Tensor] = {}
    for group in [whole] if together else [[text] for text in whole]:
        # The filling comes behind, where no row of a causal model looks.
        filled = [[*text, *text[:1] * (longest - len(text))] if together else list(text) for text in group]
        ids = torch.tensor(filled, device=network.device)
        for text, logits in zip(group, network(input_ids=ids, use_cache=False).logits, strict=True):
            for part in [text] if alone else wanted:
                if text[: len(part)] == part:
                    rows[part] = logits[len(part) - 1].clone()
    return torch.stack([rows[tuple(text)] for text in texts])


def disagreement(rows: Tensor, true: Tensor) -> str:
    """Empty if the rows agree up to rounding."""
    if rows.shape != true.shape:
        return f"rows of shape {list(rows.shape)} where {list(true.shape)} was due"
    difference = float((rows - true).abs().max())
    allowed = TOLERANCE.get(true.dtype, 6e-1) * max(float(true.float().std()), 1e-6)
    return "" if difference <= allowed else f"logits differ by {difference:.2g}"


def twin(network: PreTrainedModel, sizes: dict[str, int], to: int) -> PreTrainedModel:
    """A network of its own over the same weights, in which these fields of configuration and modules are ``to``.

    What is done beyond thousands of tokens shows in it after a few. Raises ``Unable`` where it cannot be made.
    """
    shared = [*network.parameters(), *network.buffers()]
    # What others have put on the network is not copied either.
    shared += [value for value in vars(network).values() if not isinstance(value, (dict, PreTrainedConfig))]
    try:
        copied = copy.deepcopy(network, {id(value): value for value in shared})
        _shrink(copied, sizes, to)
    except Exception as error:  # of any kind: modules and configurations copy and check themselves as they like
        log.debug("%s cannot be copied", type(network).__name__, exc_info=True)
        raise Unable(
            f"no copy can be made to try its lengths: {type(error).__name__}: {error}".splitlines()[0]
        ) from error
    return copied


def _shrink(network: PreTrainedModel, sizes: dict[str, int], to: int) -> None:
    places: dict[int, Any] = {id(module): module for module in network.modules()}
    for module in network.modules():
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig):
            places |= {id(config): config, id(config.get_text_config()): config.get_text_config()}
    for place in places.values():
        for name, value in list(vars(place).items()):
            means = name in sizes or any(word in name for word in ("window", "chunk", "topk", "compress"))
            if means and isinstance(value, int) and value in sizes.values():
                setattr(place, name, to)
