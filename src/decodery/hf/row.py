"""A row of ``generate()``'s batch: its place, its processors as guides, and where its criteria end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

from decodery.core.roles import Guide
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.tree import ROOT
from decodery.core.values import Tensor
from decodery.guide.cfg import ClassifierFree
from decodery.guide.processor import Processor
from decodery.hf.checks import unsupported
from decodery.model.companion import Companion
from decodery.model.session import Session

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

    def guides(self, processors: Sequence[Any]) -> list[Guide]:
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
                guides.append(self._guidance(processor))
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

    def _guidance(self, processor: Any) -> Guide:
        ids, mask = (processor.unconditional_context[name] for name in ("input_ids", "attention_mask"))
        if ids is None:
            return Guidance(processor.guidance_scale)
        number = self.number * len(ids) // self.batch
        tokens = ids[number] if mask is None else ids[number][mask[number] != 0]
        return Guidance(processor.guidance_scale, tokens=tuple(tokens.tolist()))


@dataclass
class Guidance(ClassifierFree):
    """``guidance_scale`` with a negative prompt of tokens; without one it is the prompt's last token."""

    tokens: tuple[int, ...] = ()

    def companions(self, prompt: Sequence[int]) -> dict[str, Companion]:
        return {"negative": Companion(self.tokens or tuple(prompt[-1:]))}


@dataclass(kw_only=True)
class Row:
    """A row of the batch: ends where the criteria say, token by token, and keeps what is to be returned."""

    stop: Stop
    place: Place
    words: Tensor
    """``[1, length]``, without padding."""
    criteria: Any
    kept: dict[str, list[Tensor]]
    """"scores" and "logits" as far as asked for, ``[batch, V]`` for each token."""

    @property
    def emitted(self) -> int:
        """How many tokens the answer has."""
        return self.stop.emitted

    @property
    def tokens(self) -> list[int]:
        """The answer so far."""
        answer: list[int] = self.words[0, self.words.shape[1] - self.emitted :].tolist()
        return answer

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether the criteria say that an answer of these tokens has ended; for searches, which compare several."""
        prompt = self.words[:, : self.words.shape[1] - self.emitted]
        words = torch.cat([prompt, prompt.new_tensor([list(tokens)])], -1)
        return bool(self.criteria(self.place.show(words), None)[self.place.number])

    def read(self, step: Step, session: Session) -> None:
        """Book a step; the answer ends with the first token at which the criteria say so."""
        rows = [step.rows.at(node) or 0 for node in (ROOT, *step.verdict.path)]
        seen = {"scores": step.p.logits, "logits": step.rows.logits}
        self.stop.reason = None if self.stop.reason in ("stop", "length") else self.stop.reason
        for count, token in enumerate(step.tokens, 1):
            self.words = torch.cat([self.words, self.words.new_tensor([[token]])], -1)
            for name, kept in self.kept.items():
                kept.append(seen[name][rows[count - 1]].float().expand(self.place.batch, -1))
            scores = tuple(self.kept["scores"]) if "scores" in self.kept else None
            if self.criteria(self.place.show(self.words), scores)[self.place.number]:
                self.stop.end("stop", step, session, count)
                return
