"""Decodery inside transformers: ``model.generate(ids, custom_generate=decodery.hf.custom_generate(draft="ngram"))``.

``generate()`` prepares config, processors and criteria as usual; only its loop is replaced. What this loop cannot do is
an error that names the field (``checks.py``).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import GenerationMixin
from transformers.generation.logits_process import LogitNormalization

from decodery.core.chooser import Seeded
from decodery.core.errors import DecoderyError, UnknownPart
from decodery.core.part import Program
from decodery.core.roles import Built, Drafter, Search
from decodery.core.stats import Stats
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.values import Tensor
from decodery.draft.model import ModelDraft
from decodery.draft.ngram import NGram
from decodery.guide.temperature import Temperature
from decodery.hf.answer import Answer
from decodery.hf.checks import prompts_of, refuse, refuse_with_beams
from decodery.hf.row import Place, Row
from decodery.model.load import load
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.model.turn import forward
from decodery.run.build import build
from decodery.run.crew import Crew, Failed
from decodery.run.loop import launch
from decodery.run.recipe import Recipe
from decodery.run.registry import name_of
from decodery.run.spec import Spec
from decodery.search.beam import Beam

GENERATE = inspect.unwrap(GenerationMixin.generate).__code__


def custom_generate(
    *call: Any,
    draft: Spec = "none",
    verify: Spec | None = None,
    guide: Spec | Sequence[Spec] = (),
    constrain: Spec = "none",
    tokenizer: Any = None,
    **inputs: Any,
) -> Any:
    """A decoding loop for ``model.generate(..., custom_generate=...)``, made of these parts.

    May also be passed as it is, its parts beside the other arguments: ``generate(ids, custom_generate=custom_generate,
    draft="ngram")``. All other choices are those of ``generate()``: ``do_sample``, ``num_beams``, processors and so on;
    guides named here come after its processors. A ``tokenizer`` is needed only by parts that read text. Processors and
    criteria must judge by their arguments alone: they also meet drafts that are refused.

    transformers drops ``tokenizer=`` where a callable is passed, so ``stop_strings=`` cannot reach this loop: use
    ``stopping_criteria=[StopStringCriteria(tokenizer, strings)]``. Rows that end early are padded in ``sequences``; their
    ``scores`` and ``logits`` are then certain of the padding token, where transformers computes on.
    """
    made = CustomGenerate(Recipe.of(draft, verify, guide, constrain), tokenizer)
    if call:
        return made(*call, **inputs)
    if inputs:
        raise UnknownPart(
            f"custom_generate() takes draft, verify, guide, constrain and tokenizer, not {', '.join(inputs)}"
        )
    return made


@dataclass
class CustomGenerate:
    """See ``custom_generate``. ``last_stats``: what each row of the last call cost."""

    recipe: Recipe
    tokenizer: Any = None
    last_stats: list[Stats] = field(default_factory=list)

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **inputs: Any,
    ) -> Any:
        """Called by ``generate()``."""
        config, inputs = generation_config, _dropped() | inputs
        beams, streamer, assistant = config.num_beams, inputs.pop("streamer", None), inputs.pop("assistant_model", None)
        refuse(model, config, inputs, assistant)
        if beams > 1:
            refuse_with_beams(config, logits_processor, streamer=streamer, assistant_model=assistant)
            logits_processor = [LogitNormalization(), *logits_processor]  # they meet log-probabilities
        pad = config._pad_token_tensor
        if pad is None and len(input_ids) > beams and len(stopping_criteria) > 1:
            raise ValueError("rows may end at different lengths: make sure that `pad_token_id` is defined")
        wrapped = wrap(model, self.tokenizer)
        wrapped.eos = frozenset([] if config._eos_token_tensor is None else config._eos_token_tensor.tolist())
        built = build(self._recipe(config, assistant), wrapped)
        names = ("scores", "logits") if config.return_dict_in_generate else ()
        length = input_ids.shape[1]
        rows = [
            Row(
                stop=Stop(wrapped.eos, (stopping_criteria.max_length or config.max_length) - length, wrapped.context),
                place=Place(i * beams, len(input_ids), input_ids[i * beams, None, : length - len(prompt)]),
                words=input_ids.new_tensor([wrapped.tokens(prompt)]),
                criteria=stopping_criteria,
                kept={name: [] for name in names if getattr(config, "output_" + name)},
            )
            for i, prompt in enumerate(prompts_of(input_ids, inputs)[::beams])
        ]
        answer = Answer(input_ids[::beams], rows, 0 if pad is None else int(pad), streamer)
        self.last_stats = answer.stats
        with closing(Crew()) as crew:
            sessions = _sessions(wrapped, rows)
            seed = 0 if built.laws.greedy else int(torch.randint(1 << 62, ()))  # so that torch.manual_seed governs
            for i, (row, session) in enumerate(zip(rows, sessions, strict=True)):
                crew.add(i, _program(built, session, row, logits_processor, Seeded(seed, i)))
            for i, event in crew.run():
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Step):
                    rows[i].read(event, sessions[i])
                    answer.add(i, event)
        if name_of(built.constrain)[1] == "none" and any(row.stop.reason == "dead_end" for row in rows):
            raise DecoderyError("the logits processors left no token to choose")
        return answer.finish(config)

    def _recipe(self, config: Any, assistant: Any) -> Recipe:
        """The parts, and those that the generation config asks for."""
        drafts: list[Drafter] = [] if name_of(self.recipe.draft)[1] == "none" else [self.recipe.draft]
        if config.prompt_lookup_num_tokens:
            drafts.append(NGram(max=config.max_matching_ngram_size or 2, length=config.prompt_lookup_num_tokens))
        if config.assistant_early_exit:
            first = tuple(range(config.assistant_early_exit))
            drafts.append(ModelDraft(length=config.num_assistant_tokens, layers=first))
        if assistant is not None:
            drafts.append(ModelDraft(wrap(assistant), config.num_assistant_tokens))
        if len(drafts) > 1:
            names = ", ".join(type(draft).__name__ for draft in drafts)
            raise DecoderyError(f"custom_generate: several ways to draft were asked for ({names}); keep one")
        draft, guide = [*drafts, self.recipe.draft][0], self.recipe.guide
        if config.num_beams > 1:
            search: Search = Beam(config.num_beams, config.length_penalty, config.early_stopping)
            return self.recipe.replace(draft=draft, search=search)
        draws = config.do_sample and not any(one.samples for one in guide)
        return self.recipe.replace(draft=draft, guide=(Temperature(), *guide) if draws else guide)


def _sessions(model: Model, rows: Sequence[Row]) -> list[Session]:
    """A session for each row; rows of the same prompt share its cache."""
    prompts = [tuple(row.words[0].tolist()) for row in rows]
    distinct = list(dict.fromkeys(prompts))
    sessions = dict(zip(distinct, model.sessions(distinct), strict=True))
    if len(distinct) == len(rows):
        return [sessions[prompt] for prompt in prompts]
    for session in sessions.values():
        forward(session)
    return [sessions[prompt].fork() for prompt in prompts]


def _program(built: Built, session: Session, row: Row, processors: Sequence[Any], rng: Seeded) -> Program:
    """The program of a row, whose processors are guides before those of the recipe."""
    guides = (*row.place.guides(processors), *built.laws.guides)
    if built.search is not None:
        row.stop.judge = row.ends
    return launch(replace(built, laws=replace(built.laws, guides=guides)), session, rng, row.stop)


class Kept:
    """A wrapped model, kept on its network so that both go together; copies and pickles of the network leave it out."""

    def __init__(self, network: Any) -> None:
        self.model = Model(network, None, loader=load)

    def __reduce__(self) -> Any:
        return type(None), ()


def wrap(network: Any, tokenizer: Any = None) -> Model:
    """The network as the engine takes it; probed the first time only."""
    if (at := getattr(network, "_decodery", None)) is None or at.model.network is not network:
        at = network._decodery = Kept(network)
    kept: Model = at.model
    model = copy.copy(kept) if kept.ability else kept  # reading it probes, which the copies then need not
    model.tokenizer = tokenizer
    return model


def _dropped() -> dict[str, Any]:
    """What ``generate()`` was given but, in transformers 5.23, hands to no callable."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not GENERATE:
        frame = frame.f_back
    given = frame.f_locals if frame else {}
    return {name: given.get(name) for name in ("streamer", "assistant_model", "synced_gpus")}
