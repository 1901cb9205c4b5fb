"""A loaded model: the network, its tokenizer, and what the probe found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from decodery.core.errors import BadModel, BadPrompt, PartsClash
from decodery.core.text import Text
from decodery.core.tree import ROOT
from decodery.core.values import Cap, Tensor
from decodery.model.arena import Arena, Feed
from decodery.model.probe import Ability, examine, vocabulary_of
from decodery.model.session import Session
from decodery.model.torch.fast import Choice, Shape, fast
from decodery.model.variant import PLAIN, through

ROOMY = 512
"""Several prompts share one lane of the cache up to this many tokens in all; beyond, each gets its own (measured: with
8 roots of 600 tokens one lane doubles the time of a step)."""


class Model:
    """What ``decodery.load`` returns. A network given by its user stays as it is; nothing in it is changed or copied.

    Attributes:
        network: the transformers model; without weights (device "meta") where another backend runs it.
        backend: what runs it.
        linear: how the Linear layers of each shape are computed, where that was chosen (``hasten``).
        memory: what the planner keeps from one request to the next: costs of a forward, acceptance rates.
        tokenizer, text: its tokenizer; without one it takes token ids only, and reading ``text`` raises ``BadModel``.
        eos: token ids that end an answer, from the generation config, the config and the tokenizer.
        context: how many tokens it takes.
        variant: how new tokens are run, where it is not the whole network (``change/layer_speedup.py``).
        can: what the probe found it able to do; ``missing`` says why not the rest.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str = "",
        *,
        backend: str = "torch",
        ability: Ability | None = None,
    ) -> None:
        self.network = network
        self.memory: dict[Hashable, Any] = {}
        self.backend = backend
        self.linear: dict[Shape, Choice] = {}
        self._loaded: dict[object, tuple[object, Model]] = {}
        """Companions by what they were loaded from, which is kept as well, so that no other gets its id."""
        self.variant = PLAIN
        if ability is not None:
            self.ability = ability
        self.name = name or type(network).__name__
        self.vocab = vocabulary_of(network)
        self.tokenizer = tokenizer
        self.eos = _eos(network, tokenizer)

    def hasten(self) -> None:
        """Compute the network's Linear layers in the fastest way found here, for as long as this object lives."""
        self._hastened = fast(self.network)
        self.linear = self._hastened.__enter__()

    @cached_property
    def text(self) -> Text:
        """Text in and out."""
        if self.tokenizer is None:
            raise BadModel(
                f"{self.name} has no tokenizer: give token ids instead of text, or the tokenizer with the model"
            )
        return Text(self.tokenizer, self.vocab)

    @cached_property
    def ability(self) -> Ability:
        """The probe's findings; computed once."""
        return examine(self.network)

    @property
    def can(self) -> frozenset[Cap]:
        """The abilities found."""
        return self.ability.can

    @property
    def missing(self) -> dict[Cap, str]:
        """The abilities not found, and why."""
        return self.ability.missing

    @cached_property
    def context(self) -> int:
        """The longest text in tokens, prompt and answer together."""
        return self.arena().context

    def arena(self, lanes: int = 1) -> Arena:
        """An empty cache."""
        arena = self.ability.open(lanes)
        arena.owner = self.network
        return arena

    def session(self, tokens: Sequence[int] = (), arena: Arena | None = None) -> Session:
        """A text of its own. Keep it and pass it to ``decode`` again: the common beginning is not computed twice.

        ``arena``: a cache of this model to share.
        """
        return Session(arena or self.arena(), tokens, variant=self.variant)

    def sessions(self, prompts: Sequence[Sequence[int]]) -> list[Session]:
        """Several texts over one arena, to be advanced together; a lane each where they are long."""
        lanes = len(prompts) if sum(map(len, prompts)) > ROOMY else 1
        arena = self.arena(lanes)
        return [Session(arena, prompt, variant=self.variant) for prompt in prompts]

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text."""
        return self.text.encode(text)

    def tokens(self, prompt: Any) -> list[int]:
        """Tokens of a prompt: a text, a list of token ids, or a conversation (``role`` and ``content`` each)."""
        if isinstance(prompt, str):
            tokens = self.encode(prompt)
        elif prompt and all(isinstance(part, dict) for part in prompt):
            tokens = self.text.chat(prompt)
        elif all(isinstance(token, int) and 0 <= token < self.vocab for token in prompt):
            tokens = list(prompt)
        else:
            raise BadPrompt(f"a prompt is a text, messages, or token ids below {self.vocab}; this is {_short(prompt)}")
        if not tokens:
            raise BadPrompt("the prompt is empty: give at least one token")
        if len(tokens) >= self.context:
            raise BadPrompt(f"the prompt has {len(tokens)} tokens, the model's context is {self.context}")
        return tokens

    def fingerprint(self) -> str:
        """Tells tokenizers apart: where it is equal, token ids mean the same."""
        return self.text.fingerprint

    def matcher_tokenizer(self) -> Any:
        """The tokenizer as llguidance reads it."""
        return self.text.matcher_tokenizer

    def companion(self, spec: object) -> Model:
        """Another model with the same vocabulary, for drafting or contrast; loaded if it is not a ``Model`` yet."""
        from decodery.model.load import load

        if isinstance(spec, Model):
            other = spec
        else:  # loaded once: every request binds its own copy of the parts
            key = str(spec) if isinstance(spec, (str, Path)) else id(spec)
            if key not in self._loaded:
                self._loaded[key] = spec, load(spec, **self._like())
            other = self._loaded[key][1]
        mine, theirs = (one.tokenizer and one.tokenizer.get_vocab() for one in (self, other))
        if other.vocab != self.vocab or (mine and theirs and mine != theirs):
            raise PartsClash(
                f"the model {other.name} has another vocabulary ({other.vocab} tokens) than {self.name} ({self.vocab}); "
                "a second model must share the tokenizer"
            )
        return other

    def _like(self) -> dict[str, Any]:
        """The options of ``load`` that give a model beside this one."""
        device = self.network.device
        place = "cpu" if device.type == "meta" else device
        return {"dtype": self.network.dtype, "device": place, "backend": self.backend}

    def default_layers(self) -> tuple[int, ...]:
        """The outer two thirds: early and late layers matter most."""
        third = math.ceil(self.depth / 3)
        return (*range(third), *range(self.depth - third, self.depth))

    @property
    def depth(self) -> int:
        """How many layers it has."""
        return int(self.network.config.get_text_config().num_hidden_layers)

    def logits(self, states: Tensor) -> Tensor:
        """``[n, d]`` outputs of any layer -> ``[n, V]``: what the last norm and the head make of them.

        A pass in which no layer runs, so it is the network's own way from states to logits, whatever it is.
        """
        arena = self.arena()
        handles = arena.reserve(len(states))
        feed = Feed(handles, [0] * len(states), [ROOT] * len(states), handles, variant=through(()), states=states)
        return arena.extend(feed).logits

    def __repr__(self) -> str:
        return (
            f"Model({self.name}, {self.vocab} tokens, can: {', '.join(sorted(c.value for c in self.can)) or 'chains'})"
        )


def _eos(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    found: set[int] = set()
    for place in (network.generation_config, network.config, tokenizer):
        ids = getattr(place, "eos_token_id", None)
        found |= set(ids) if isinstance(ids, (list, tuple)) else {ids} if ids is not None else set()
    return frozenset(found)


def _short(prompt: object) -> str:
    return f"{type(prompt).__name__}: {prompt!r:.60}"
