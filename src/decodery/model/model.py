"""A loaded model: the network, its tokenizer, and what the probe found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decodery.core.errors import BadModel, BadPrompt, PartsClash
from decodery.core.text import Text
from decodery.core.tree import ROOT
from decodery.core.values import Cap, Tensor
from decodery.model.ability import Ability
from decodery.model.arena import Arena, Feed
from decodery.model.facts import Unloaded, facts_of, first_eos
from decodery.model.prompt import ids_of, is_conversation, kind_of, sound, text_of
from decodery.model.session import Session
from decodery.model.torch.fast import Choice, Shape, fast
from decodery.model.variant import PLAIN, through

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROOMY = 512
"""Several prompts share one lane of the cache up to this many tokens in all; beyond, each gets its own (measured: with
8 roots of 600 tokens one lane doubles the time of a step)."""


class Model:
    """What ``decodery.load`` returns. A network given by its user stays as it is; nothing in it is changed or copied.

    Attributes:
        source: what ``network`` is had from; models with the same one may share sessions.
        facts: what the network says of itself.
        backend: what runs it.
        linear: how the Linear layers of each shape are computed, where that was chosen (``hasten``).
        tokenizer, text: its tokenizer; without one it takes token ids only, and reading ``text`` raises ``BadModel``.
        eos: token ids that end an answer: those of the generation config, as in ``generate`` of transformers; where it
            names none of the vocabulary, those of the config, and else the tokenizer's.
        context: how many tokens it takes.
        variant: how new tokens are run, where it is not the whole network (``change/layer_speedup.py``).
        lossless: whether its answers are those of the model as it was loaded; a lossy ``change`` makes it False.
        can: what the probe found it able to do; ``missing`` says why not the rest.
    """

    def __init__(
        self,
        network: PreTrainedModel | Unloaded,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str = "",
        *,
        backend: str = "torch",
        ability: Ability | None = None,
        loader: Callable[..., Model] | None = None,
    ) -> None:
        self.source: PreTrainedModel | Unloaded = network
        self.facts = network.facts if isinstance(network, Unloaded) else facts_of(network)
        self.backend = backend
        self.linear: dict[Shape, Choice] = {}
        self.variant = PLAIN
        self.lossless = True
        self._loader = loader
        self._companions: dict[str | int, tuple[object, Model]] = {}
        if ability is not None:
            self.ability = ability
        self.name = name or self.facts.kind
        self.vocab = self.facts.vocab
        self.tokenizer = tokenizer
        self._rows = min(self.vocab, self.facts.embedded)
        """Token ids below this one have both a logit and an embedding."""
        self.eos = frozenset(self.facts.eos or first_eos([tokenizer], self.vocab))

    @property
    def network(self) -> PreTrainedModel:
        """The transformers model; without weights (device "meta") where another backend runs it."""
        return self.source.network if isinstance(self.source, Unloaded) else self.source

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.source.device

    @property
    def dtype(self) -> torch.dtype:
        """What it is computed in."""
        return self.source.dtype

    def hasten(self) -> None:
        """Compute the network's Linear layers in the fastest way found here, for as long as this object lives."""
        self._hastened = fast(self.network)
        self.linear = self._hastened.__enter__()

    @cached_property
    def text(self) -> Text:
        """Text in and out."""
        if self.tokenizer is None:
            raise BadModel(
                f"{self.name} has no tokenizer, which texts, stop strings and constraints need: give token ids, or load "
                "the pair (network, tokenizer)"
            )
        return Text(self.tokenizer, self.vocab)

    @cached_property
    def ability(self) -> Ability:
        """The probe's findings; computed once."""
        from decodery.model.probe import examine  # imports much of transformers, which another backend does not need

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
        arena.owner = self.source
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
        """Tokens of plain text, special tokens as the tokenizer adds them."""
        return self._known(self.text.encode(sound(text))) if text or self.tokenizer is not None else []

    def pieces(self, text: str) -> list[int]:
        """Tokens of a piece of a longer text: no special token is added."""
        return self._known(self.text.pieces(sound(text)))

    def tokens(self, prompt: Any, template: Mapping[str, Any] | None = None) -> list[int]:
        """Tokens of a prompt.

        A prompt is a text (bytes are read as UTF-8), token ids (whole numbers in a list, an array or a tensor of one row),
        or a conversation (messages with ``role`` and ``content``). Raises ``BadPrompt`` for anything else.
        ``template``: what the chat template is given beside the messages (``Text.chat``).
        """
        if template and not is_conversation(prompt):
            named = " and ".join(sorted(template))
            raise BadPrompt(f"{named} go to the chat template, so the prompt must be messages, not {kind_of(prompt)}")
        if isinstance(prompt, (bytes, bytearray)):
            prompt = text_of(prompt)
        if isinstance(prompt, str):
            tokens = self.encode(prompt)
        elif is_conversation(prompt):
            for message in prompt:
                sound(str(message.get("content", "")))
            tokens = self._known(self.text.chat(prompt, template))
        else:
            tokens = self._known(ids_of(prompt))
        if not tokens:
            raise BadPrompt("the prompt is empty: give at least one token")
        if len(tokens) >= self.context:
            raise BadPrompt(f"the prompt has {len(tokens)} tokens, the model's context is {self.context}")
        return tokens

    def fingerprint(self) -> str:
        """Tells tokenizers apart: where it is equal, token ids mean the same."""
        return self.text.fingerprint if self.tokenizer is not None else f"no tokenizer, {self.vocab} tokens"

    def matcher_tokenizer(self) -> Any:
        """The tokenizer as llguidance reads it."""
        return self.text.matcher_tokenizer

    def companion(self, spec: object) -> Model:
        """Another model with the same vocabulary, for drafting or contrast; loaded if it is not a ``Model`` yet."""
        if isinstance(spec, Model):
            other = spec
        else:  # loaded once: every request binds its own copy of the parts
            key = str(spec) if isinstance(spec, (str, Path)) else id(spec)
            if key not in self._companions:
                self._companions[key] = spec, self._load(spec)
            other = self._companions[key][1]
        mine, theirs = (one.tokenizer and one.tokenizer.get_vocab() for one in (self, other))
        if other.vocab != self.vocab or (mine and theirs and mine != theirs):
            raise PartsClash(
                f"the model {other.name} has another vocabulary ({other.vocab} tokens) than {self.name} ({self.vocab}); "
                "a second model must share the tokenizer"
            )
        return other

    def _load(self, spec: object) -> Model:
        """A model loaded like this one: same dtype, device and backend. A network given as it is stays as it is."""
        if self._loader is None:
            raise BadModel(f"{self.name} was not made by decodery.load, so {spec!r} must be a loaded Model")
        if isinstance(spec, tuple):
            return self._loader(spec)
        return self._loader(spec, dtype=self.dtype, device=self.device, backend=self.backend)

    def _known(self, tokens: list[int]) -> list[int]:
        """The tokens, if the network knows them all. Raises ``BadPrompt``."""
        if wrong := [token for token in tokens if not 0 <= token < self._rows]:
            added = self.tokenizer is not None and self._rows <= wrong[0] < len(self.tokenizer)
            raise BadPrompt(
                f"token {wrong[0]} is none of the network's, whose ids are 0 to {self._rows - 1}"
                + "; its tokenizer has more: call network.resize_token_embeddings, or leave that token out" * added
            )
        return tokens

    def default_layers(self) -> tuple[int, ...]:
        """The outer two thirds: early and late layers matter most."""
        third = math.ceil(self.depth / 3)
        return (*range(third), *range(self.depth - third, self.depth))

    @property
    def depth(self) -> int:
        """How many layers it has."""
        return self.facts.depth

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
