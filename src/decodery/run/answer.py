"""``decode`` and ``stream``: a model, a prompt, and how tokens are to be chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple, overload

from decodery.core.chooser import Seeded
from decodery.core.errors import BadPrompt, DecoderyError
from decodery.core.roles import Drafter, Program
from decodery.core.stats import Stats
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.text import TextStream
from decodery.core.values import Candidate
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.plan.acceptance import Forecast, Rates
from decodery.plan.costs import Costs
from decodery.plan.measure import calibrated
from decodery.plan.planner import Auto, Habits, Plan, plan_of
from decodery.run.build import Built, build
from decodery.run.loop import speculate, together
from decodery.run.recipe import Recipe, Spec

BUCKETS = (128, 512, 2048, 8192)
"""Prompts up to each of these lengths share the cost of a forward as real steps correct it."""


class Chosen(NamedTuple):
    """A token's log-probability (nats, the model's own law before any guide) and the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Output:
    """An answer.

    ``tokens`` ends with the token that ended it, ``text`` before that token (whatever it says) and before any stop
    string. ``finish_reason``: see ``Stop``.
    ``logprobs`` is filled on request; ``candidates`` by searches.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    stats: Stats = field(default_factory=Stats)
    logprobs: list[Chosen] | None = None
    candidates: list[Candidate] = field(default_factory=list)


class Piece(NamedTuple):
    """What one step added to an answer: text that is final, and the step behind it.

    ``step`` is None for what was held back until the end; ``answer`` says which of several answers this belongs to;
    ``drafted`` how many characters of the text came from accepted drafts (they stand before the verifier's own).
    """

    text: str
    step: Step | None
    answer: int = 0
    drafted: int = 0


class Stream(Iterator[Piece]):
    """Iterate for pieces of text as they come; ``outputs`` is complete afterwards, ``output`` is its first.

    Left half way, it frees its cache as soon as nobody holds it.
    """

    def __init__(self, model: Model, sessions: Sequence[Session], recipe: Recipe, request: Request) -> None:
        answering = _Answering(model, sessions, recipe, request)
        self.outputs = answering.outputs
        self._pieces = answering.run()

    @property
    def output(self) -> Output:
        """The first answer."""
        return self.outputs[0]

    def __next__(self) -> Piece:
        return next(self._pieces)

    def finish(self) -> list[Output]:
        """Run to the end."""
        for _ in self:
            pass
        return self.outputs


class _Answering:
    """Behind a stream. It does not hold the generator it runs as: the two would keep each other, and the cache, alive."""

    def __init__(self, model: Model, sessions: Sequence[Session], recipe: Recipe, request: Request) -> None:
        self.outputs = [Output() for _ in sessions]
        self._busy = 0.0
        """Seconds spent here; what the caller does between two pieces is not the engine's time."""
        self._model, self._sessions, self._request = model, sessions, request
        self._built = build(recipe, model)
        if self._built.search is not None and request.logprobs is not None:
            raise DecoderyError("logprobs are not reported for searches; read the scores of output.candidates")
        self._plans = [_plan(model, request.plan, recipe.draft, len(s.tokens), len(sessions)) for s in sessions]
        self._stops = [self._stop() for _ in sessions]

    def run(self) -> Iterator[Piece]:
        """Pieces of all answers, as they come."""
        for output, session in zip(self.outputs, self._sessions, strict=True):
            output.stats.prompt_tokens, output.stats.cached_tokens = len(session.tokens), session.cached
            output.stats.lossless = self._built.lossless and self._model.layers is None
            if self._request.logprobs is not None:
                output.logprobs = []
        try:
            yield from self._steps()
        finally:
            if len(self._sessions) > 1:  # forks or rows made here; a single session may be the caller's
                for session in self._sessions:
                    session.close()

    def _steps(self) -> Iterator[Piece]:
        for answer, step in self._timed(together(self._programs())):
            output, stop = self.outputs[answer], self._stops[answer]
            output.stats.add(step)
            output.stats.seconds = self._busy
            output.stats.first = output.stats.first or (self._busy if output.tokens or step.tokens else 0.0)
            output.tokens += step.tokens
            output.candidates = step.candidates or output.candidates
            if output.logprobs is not None:
                output.logprobs += logprobs(step, self._request.logprobs or 0)
            yield _piece(stop.text, step, answer)
        for answer, (output, stop) in enumerate(zip(self.outputs, self._stops, strict=True)):
            output.finish_reason = stop.reason or ""
            if stop.text is not None:
                rest = stop.text.finish()
                output.text = stop.text.text
                if rest:
                    yield Piece(rest, None, answer)

    def _timed(self, steps: Iterator[tuple[int, Step]]) -> Iterator[tuple[int, Step]]:
        while True:
            start = perf_counter()
            found = next(steps, None)
            self._busy += perf_counter() - start
            if found is None:
                return
            yield found

    def _programs(self) -> Iterator[Program]:
        built: Built = self._built
        companions = {name: c for guide in built.laws.guides for name, c in guide.companions().items()}
        for i, (session, stop) in enumerate(zip(self._sessions, self._stops, strict=True)):
            session.accompany(companions)
            rng = Seeded(*([] if self._request.seed is None else [self._request.seed, i]))
            if built.search is not None:
                yield built.search(session, built.laws, built.constrain, rng, stop)
            else:
                draft = copy.copy(built.draft)
                yield speculate(
                    session, draft, built.verify, built.laws, built.constrain, rng, stop, built.want, self._plans[i]
                )

    def _stop(self) -> Stop:
        request = self._request
        return Stop(
            eos=frozenset() if request.ignore_eos else self._model.eos,
            max_new_tokens=request.max_new_tokens,
            context=self._model.context,
            time_limit=request.time_limit,
            text=TextStream(self._model.text, request.stop, self._built.constrain.literal),
        )


@dataclass(frozen=True)
class Request:
    """When to stop and what to report; the other half of a call beside the recipe."""

    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    time_limit: float | None = None
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    plan: str = "off"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise DecoderyError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.seed is not None and self.seed < 0:
            raise DecoderyError(f"seed must be 0 or more, not {self.seed}; without one, each run is different")
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise DecoderyError(f"stop strings must be non-empty texts, not {list(self.stop)!r}")


def stream(
    model: Model,
    prompt: Any,
    *,
    draft: Spec = "none",
    verify: Spec | None = None,
    guide: Spec | Sequence[Spec] = (),
    constrain: Spec = "none",
    search: Spec | None = None,
    recipe: Recipe | None = None,
    max_new_tokens: int = 256,
    stop: str | Sequence[str] = (),
    time_limit: float | None = None,
    ignore_eos: bool = False,
    seed: int | None = None,
    n: int = 1,
    logprobs: int | None = None,
    session: Session | None = None,
    plan: str = "off",
) -> Stream:
    """Decode step by step; see ``decode`` for the arguments. Iterate over pieces of text, then read ``output``."""
    recipe = recipe or Recipe.of(draft, verify, guide, constrain, search)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    request = Request(max_new_tokens, stops, time_limit, ignore_eos, seed, logprobs, plan)
    return Stream(model, _sessions(model, prompt, session, n, recipe), recipe, request)


@overload
def decode(model: Model, prompt: str, *, n: None = None, **options: Any) -> Output: ...
@overload
def decode(model: Model, prompt: Any, *, n: int | None = None, **options: Any) -> Any: ...
def decode(model: Model, prompt: Any, *, n: int | None = None, **options: Any) -> Any:
    """Decode a prompt, or several at once.

    Args:
        model: from ``decodery.load``.
        prompt: a text (used as it is), messages (through the chat template), token ids, or a list of any of these.
        draft, verify, guide, constrain, search: parts by name, spec or instance; or all of them as ``recipe``.
            Greedy unless a guide samples (``guide="temperature:0.7"``).
        max_new_tokens, stop, time_limit (seconds), ignore_eos: when to stop.
        seed: makes a run repeatable; each of several answers has its own randomness.
        n: this many answers to one prompt, sharing its cache.
        plan: how much to draft: "off" (all that the drafter proposes), "fixed:N" (N nodes a step at most), or "auto": the
            tree that promises most tokens per second, by the cost of a forward here (measured once, about a second)
            and the acceptance seen so far.
        logprobs: also report each token's log-probability and that many alternatives.
        session: from ``model.session()``; keeps the cache between calls, so a chat does not compute its past again.

    Returns:
        ``Output``; a list of them for a list of prompts or a given ``n``.
    """
    outputs = stream(model, prompt, n=1 if n is None else n, **options).finish()
    return outputs[0] if n is None and not is_batch(prompt) else outputs


def is_batch(prompt: Any) -> bool:
    """Whether this is a list of prompts rather than one prompt."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and not isinstance(prompt[0], (int, dict))


def logprobs(step: Step, top: int) -> list[Chosen]:
    """The committed tokens of a step under the model's own law, with the ``top`` likeliest alternatives."""
    rows = [0, *(row for i in step.verdict.path if (row := step.rows.at(i)) is not None)][: len(step.tokens)]
    if len(rows) < len(step.tokens):
        return []
    logs = step.rows.logits[rows].log_softmax(-1)
    best = logs.topk(top) if top else None
    return [
        Chosen(
            token,
            float(logs[i, token]),
            tuple(zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True)) if best else (),
        )
        for i, token in enumerate(step.tokens)
    ]


def _piece(text: TextStream | None, step: Step, answer: int) -> Piece:
    """What a step adds to the text shown, and how far drafts reach into it."""
    if text is None:
        return Piece("", step, answer)
    before, fresh = len(text.text), text.piece()
    accepted = len(text.ends) - len(step.tokens) + len(step.verdict.path)
    reach = text.ends[accepted - 1] - before if step.verdict.path else 0
    return Piece(fresh, step, answer, min(max(reach, 0), len(fresh)))


def _plan(model: Model, spec: str, draft: Drafter, prompt: int, answers: int) -> Plan:
    """The plan of one of ``answers`` answers, which share each forward.

    It goes on from what earlier requests taught: with this drafter, and with prompts of such length and as many answers.
    """
    plan = plan_of(spec)
    if plan is not None:
        return plan
    rates = model.memory.setdefault(("rates", repr(draft)), Rates())
    habits = model.memory.setdefault(("habits", repr(draft)), Habits())
    bucket = next((size for size in BUCKETS if prompt <= size), BUCKETS[-1])
    if "measured" not in model.memory:
        model.memory["measured"] = calibrated(model)
    costs = model.memory.setdefault(("costs", bucket, answers), Costs(*model.memory["measured"]))
    return Auto(costs, Forecast(rates), habits)


def _sessions(model: Model, prompt: Any, session: Session | None, n: int, recipe: Recipe) -> list[Session]:
    if is_batch(prompt):
        if session is not None or n != 1:
            raise BadPrompt("session= and n= go with one prompt, not with a list of them")
        return model.sessions([model.tokens(one) for one in prompt])
    tokens = model.tokens(prompt)
    if session is None:
        session = model.session(tokens)
    else:
        session.restart(tokens)
    if n == 1:
        return [session]
    if n < 1:
        raise BadPrompt(f"n must be at least 1, not {n}")
    if not any(guide.samples for guide in recipe.guide):
        raise DecoderyError(
            f"n={n} answers of a greedy decoding would be equal; add a guide that samples, e.g. temperature"
        )
    session.prefill()
    return [session.fork() for _ in range(n)]
