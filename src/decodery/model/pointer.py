"""Pointer networks: a tiny model whose vocabulary is the positions of its input, so that the engine decodes it as any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from decodery.core.values import Cap, Tensor
from decodery.model.arena import Arena
from decodery.model.session import Session
from decodery.model.toy import ToyArena

State = tuple[Tensor, Tensor]


class PointerNetwork(nn.Module):
    """An LSTM reads the input, another one answers; the output law is its attention over the input's positions.

    Pointer Networks (Vinyals et al. 2015), equations 3: u_j = v tanh(W1 e_j + W2 d), over the n positions and an end. The
    decoder reads the input vector at the position it chose, never its number, so any n will do. ``features``: numbers in
    an input vector. ``hidden``: the size of all states.
    """

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.encoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.begin = nn.Parameter(torch.zeros(hidden).uniform_(-0.08, 0.08))
        self.end = nn.Parameter(torch.zeros(hidden).uniform_(-0.08, 0.08))
        self.keys = nn.Linear(2 * hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def read(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, State]:
        """``[B, n, features]`` and how many rows of each are there -> vectors and keys ``[B, n + 1, hidden]``, the end last,
        and the state that the decoder begins with."""
        embedded = self.embed(inputs)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=inputs.shape[1])
        end = self.end.expand(len(inputs), 1, -1)
        vectors = torch.cat([embedded, self.begin.expand(len(inputs), 1, -1)], 1)  # what is fed back; the end begins
        return vectors, self.keys(torch.cat([torch.cat([states, end], 1), torch.cat([embedded, end], 1)], -1)), last

    def point(self, keys: Tensor, states: Tensor) -> Tensor:
        """Keys ``[B, n + 1, hidden]`` and decoder states ``[B, t, hidden]`` -> logits ``[B, t, n + 1]``."""
        scores: Tensor = self.score(torch.tanh(keys[:, None] + self.query(states)[:, :, None])).squeeze(-1)
        return scores

    def forward(self, inputs: Tensor, lengths: Tensor, answers: Tensor) -> Tensor:
        """Logits ``[B, t, n + 1]`` of each token of the answers ``[B, t]`` given those before it; minus infinity on padding."""
        vectors, keys, state = self.read(inputs, lengths)
        n = inputs.shape[1]
        before = torch.cat([torch.full_like(answers[:, :1], n), answers[:, :-1]], 1)
        fed = vectors.gather(1, before[..., None].expand(-1, -1, vectors.shape[-1]))
        states, _ = self.decoder(fed, state)
        padding = torch.arange(n + 1, device=inputs.device)[None] >= lengths[:, None]
        padding[:, n] = False  # the end
        return self.point(keys, states).masked_fill(padding[:, None], -torch.inf)


class PointerModel:
    """A pointer network that has read one input ``[n, features]``: positions are tokens 0 to n - 1, token n is the end.

    A prompt is ``model.prompt``, the end as the sign to begin.
    """

    missing: dict[Cap, str] = dict.fromkeys(set(Cap) - {Cap.TREE}, "a pointer network has none")
    can = frozenset({Cap.TREE})
    tokenizer = None
    lossless = True
    depth = 1
    context = 1 << 16

    def __init__(self, network: PointerNetwork, inputs: Tensor) -> None:
        self._network = network.eval()
        self.vocab = len(inputs) + 1
        self.eos = frozenset({len(inputs)})
        self.prompt = [len(inputs)]
        with torch.no_grad():
            self._vectors, self._keys, start = network.read(inputs[None].float(), torch.tensor([len(inputs)]))
        self._known: dict[tuple[int, ...], tuple[Tensor, State]] = {(): (torch.zeros(self.vocab), start)}

    def lm(self, words: tuple[int, ...]) -> Tensor:
        """All tokens so far -> logits ``[n + 1]``."""
        if words not in self._known:
            self.lm(words[:-1])
            with torch.no_grad():
                states, state = self._network.decoder(self._vectors[:, words[-1]][:, None], self._known[words[:-1]][1])
                self._known[words] = self._network.point(self._keys, states)[0, 0], state
        return self._known[words][0]

    def arena(self, lanes: int = 1) -> Arena:
        """An empty cache."""
        arena = ToyArena(self.lm, self.lm, self.context)
        arena.owner = self
        return arena

    def session(self, tokens: Sequence[int] = (), arena: Arena | None = None) -> Session:
        """A text of its own."""
        return Session(arena or self.arena(), tokens)

    def tokens(self, prompt: Any, template: Mapping[str, Any] | None = None) -> list[int]:
        """A prompt as tokens; there is no chat template."""
        return list(prompt)

    def fingerprint(self) -> str:
        """Tells vocabularies apart."""
        return f"positions of {self.vocab - 1} inputs"
