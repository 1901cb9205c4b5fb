"""What goes back to the caller of ``generate()``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from decodery.core.errors import DecoderyError
from decodery.core.stats import Stats
from decodery.core.step import Step
from decodery.core.values import Candidate, Tensor
from decodery.hf.row import Row


@dataclass
class Answer:
    """What goes back to the caller of ``generate()``."""

    input_ids: Tensor
    rows: list[Row]
    pad: int
    streamer: Any
    sent: int = 0
    found: dict[int, list[Candidate]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stats = [Stats(prompt_tokens=row.words.shape[1]) for row in self.rows]
        self._started = perf_counter()

    def add(self, row: int, step: Step) -> None:
        """One step of one row."""
        stats, self.found[row] = self.stats[row], step.candidates
        stats.add(step)
        stats.seconds = perf_counter() - self._started
        stats.first = stats.first or stats.seconds
        self._stream()

    def finish(self, config: Any) -> Any:
        """A tensor of tokens, or the output object."""
        if self.streamer is not None:
            self._stream()
            self.streamer.end()
        if any(row.stop.reason == "length" for row in self.rows):
            warnings.warn(
                f"an answer was cut at the model's context of {self.rows[0].stop.context} tokens", stacklevel=4
            )
        prompts, answers = self.input_ids, [row.tokens for row in self.rows]
        extras: dict[str, Any] = {name: self._kept(name) for name in self.rows[0].kept}
        if config.num_beams > 1:
            few = min(len(self.found.get(row, ())) for row in range(len(self.rows)))
            if few < config.num_return_sequences:
                raise DecoderyError(f"the search found {few} answers; num_return_sequences asks for more")
            best = [one for row in range(len(self.rows)) for one in self.found[row][: config.num_return_sequences]]
            prompts, answers = prompts.repeat_interleave(config.num_return_sequences, 0), [list(b.tokens) for b in best]
            extras = {"sequences_scores": torch.tensor([one.score for one in best], device=prompts.device)}
        extras["sequences"] = torch.cat([prompts, self._padded(answers)], -1)
        kind = GenerateDecoderOnlyOutput if config.num_beams == 1 else GenerateBeamDecoderOnlyOutput
        return kind(**extras) if config.return_dict_in_generate else extras["sequences"]

    def _stream(self) -> None:
        """A column of the batch at a time, as soon as no row lacks it."""
        if self.streamer is not None:
            going = [row.emitted for row in self.rows if row.stop.reason is None]
            ready = min(going) if going else max(row.emitted for row in self.rows)
            for column in self._padded([row.tokens[self.sent : ready] for row in self.rows]).T:
                self.streamer.put(column.cpu())
            self.sent = ready

    def _padded(self, answers: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, answers))
        return self.input_ids.new_tensor([[*answer, *[self.pad] * (longest - len(answer))] for answer in answers])

    def _kept(self, name: str) -> tuple[Tensor, ...]:
        """``[batch, V]`` for each token; where a row has ended, certain of the padding."""
        end = torch.full_like(self.rows[0].kept[name][0][0], -torch.inf)
        end[self.pad] = 0.0
        longest = max(row.emitted for row in self.rows)
        columns = [[row.kept[name][at][0] if at < row.emitted else end for row in self.rows] for at in range(longest)]
        return tuple(torch.stack(column).to(self.input_ids.device) for column in columns)
