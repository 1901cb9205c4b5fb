"""A row of ``generate()``'s batch: its place, its processors as guides, and where its criteria end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    LogitsProcessorList,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Guide, Verifier
from decodery.core.step import Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import Companion, Rows, Tensor
from decodery.guide.cfg import ClassifierFree
from decodery.guide.processor import Processor
from decodery.hf.checks import unsupported

ROW_BY_ROW = (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
"""Processors of transformers that keep something for each row of the batch."""


@dataclass(frozen=True)
class Place:
    """A row's place in the batch. Processors and criteria are shown the padded row, once for each row of the batch.

    So those that keep something for each row find what belongs to this one.
    """

    number: int
    batch: int
    padding: Tensor

    def show(self, words: Tensor) -> Tensor:
        """``[1, length]`` -> ``[batch, padded length]``."""
        return torch.cat([self.padding.to(words.device), words], -1).expand(self.batch, -1)

    def guides(self, processors: Sequence[Any], prompt: Sequence[int]) -> list[Guide]:
        """Processors of transformers as guides of this row."""
        guides: list[Guide] = []
        chain = LogitsProcessorList()
        for processor in processors:
            if isinstance(processor, SynthIDTextWatermarkLogitsProcessor):
                raise unsupported("watermarking_config (SynthID)", "it remembers its calls; WatermarkingConfig works")
            if isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor):
                if chain:
                    guides.append(self._chain(chain))
                    chain = LogitsProcessorList()
                guides.append(self._guidance(processor, prompt))
            else:
                chain.append(processor)
        return [*guides, self._chain(chain)]

    def _chain(self, processors: Any) -> Guide:
        def process(words: Tensor, scores: Tensor) -> Tensor:
            shown = self.show(words)
            for processor in processors:
                if isinstance(processor, ROW_BY_ROW) or type(processor).__module__ != LogitsProcessorList.__module__:
                    scores = processor(shown, scores.repeat(self.batch, 1))[self.number, None]
                else:  # the others see one row only, which spares sorting the vocabulary for all the copies
                    scores = processor(shown[:1], scores)
            return scores

        return Processor(process)

    def _guidance(self, processor: Any, prompt: Sequence[int]) -> Guide:
        ids, mask = (processor.unconditional_context[name] for name in ("input_ids", "attention_mask"))
        if ids is None:
            return Guidance(processor.guidance_scale, tokens=(prompt[-1],))
        number = self.number * len(ids) // self.batch
        tokens = ids[number] if mask is None else ids[number][mask[number] != 0]
        return Guidance(processor.guidance_scale, tokens=tuple(tokens.tolist()))


@dataclass
class Guidance(ClassifierFree):
    """``guidance_scale`` with a negative prompt of tokens; without one it is the prompt's last token."""

    tokens: tuple[int, ...] = ()

    def companions(self) -> dict[str, Companion]:
        return {"negative": Companion(self.tokens)}


@dataclass(kw_only=True)
class Row(Stop):
    """A row of the batch: ends where the criteria say, token by token, and keeps what is to be returned."""

    place: Place
    words: Tensor
    """``[1, length]``, without padding."""
    criteria: Any
    kept: dict[str, list[Tensor]]
    """"scores" and "logits" as far as asked for, ``[batch, V]`` for each token."""
    seen: dict[str, Tensor] = field(default_factory=dict)
    """The rows that the next tokens to be booked are drawn from."""

    @property
    def tokens(self) -> list[int]:
        """The answer so far."""
        answer: list[int] = self.words[0, self.words.shape[1] - self.emitted :].tolist()
        return answer

    def take(self, tokens: Sequence[int]) -> int:
        for count, token in enumerate(tokens, 1):
            self.emitted += 1
            self.words = torch.cat([self.words, self.words.new_tensor([[token]])], -1)
            for name, kept in self.kept.items():
                kept.append(self.seen[name][count - 1].expand(self.place.batch, -1))
            scores = tuple(self.kept["scores"]) if "scores" in self.kept else None
            if self.criteria(self.place.show(self.words), scores)[self.place.number]:
                self.reason = "stop"
                return count
        return len(tokens)


@dataclass
class Watch(Verifier):
    """A verifier that shows the row what its tokens are drawn from."""

    verify: Verifier
    row: Row

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        verdict = self.verify(tree, p, rows, rng)
        if self.row.kept:
            at = [rows.at(node) or 0 for node in (ROOT, *verdict.path)]
            self.row.seen = {"scores": p.logits[at].float(), "logits": rows.logits[at].float()}
        return verdict
