"""``decode`` and ``stream``: a model, a prompt, and how tokens are to be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from time import perf_counter
from typing import NamedTuple, Self

from decodery.core.chooser import Seeded
from decodery.core.errors import DecoderyError
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.core.text import TextStream
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.model.turn import forward
from decodery.plan.planner import plans
from decodery.run.build import build
from decodery.run.crew import Crew, Failed
from decodery.run.loop import launch
from decodery.run.options import Request
from decodery.run.output import Output, Piece, logprobs, parsed, piece_of
from decodery.run.recipe import Recipe


class Stream(Iterator[Piece]):
    """Iterate for pieces of text as they come; ``outputs`` is complete afterwards, ``output`` is its first.

    ``async for`` does the same, each step in a thread; ``with`` closes the stream at the end of the block. What was told so
    far is in ``outputs`` at any moment. Nothing runs before the first piece is asked for. Left half way, it frees its cache
    when it is closed, or when nobody holds it any more. Where one of several answers fails, the others go on to their ends;
    then the first failure is raised.
    """

    def __init__(self, model: Model, asked: Asked, recipe: Recipe, request: Request) -> None:
        driver = _Driver(model, asked, recipe, request)
        self.outputs = driver.outputs
        self._pieces = driver.run()

    @property
    def output(self) -> Output:
        """The first answer."""
        return self.outputs[0]

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        piece = await asyncio.to_thread(next, self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """Give up what is not answered yet; the session can be used for another answer."""
        self._pieces.close()

    def finish(self) -> list[Output]:
        """Run to the end."""
        for _ in self:
            pass
        return self.outputs


class Asked(NamedTuple):
    """What is to be continued: prompts as token ids, ``n`` answers to each, on the caller's session if there is one."""

    prompts: Sequence[Sequence[int]]
    n: int = 1
    session: Session | None = None


class _Driver:
    """Drives the programs of one call.

    It is kept separate from ``Stream`` so that the generator and its owner do not form a reference cycle, which would delay
    freeing the cache.
    """

    def __init__(self, model: Model, asked: Asked, recipe: Recipe, request: Request) -> None:
        self.outputs = [Output() for _ in range(len(asked.prompts) * asked.n)]
        self._model, self._asked, self._request = model, asked, request
        self._built = build(recipe, model)
        if self._built.search is not None and request.logprobs is not None:
            raise DecoderyError("logprobs are not reported for searches; read the scores of output.candidates")
        lengths = [len(prompt) for prompt in asked.prompts for _ in range(asked.n)]
        self._plans, self._joint = plans(request.plan, model, recipe.draft, lengths)

    def run(self) -> Generator[Piece, None, None]:
        """Pieces of all answers, as they come."""
        watch, errors = _Watch(), list[Exception]()
        with self._sessions() as sessions, closing(Crew()) as crew:
            stops = [self._stop() for _ in sessions]
            for i, (session, stop) in enumerate(zip(sessions, stops, strict=True)):
                self._open(self.outputs[i], session)
                rng = Seeded(*([] if self._request.seed is None else [self._request.seed, i]))
                crew.add(i, launch(self._built, session, rng, stop, self._plans[i]))
            for i, event in crew.run(self._joint, self._reading(sessions)):
                output, stop = self.outputs[i], stops[i]
                if isinstance(event, Step):
                    stop.read(event, sessions[i])
                    self._book(output, event, watch)
                    piece = piece_of(stop.text, event, i)
                elif isinstance(event, Failed):
                    output.finish_reason = "error"
                    errors.append(event.error)
                    continue
                else:
                    rest = stop.text.finish() if stop.text is not None else ""
                    output.finish_reason = stop.reason or ""
                    output.parsed = parsed(self._built.constrain, output, rest)
                    if self._joint is not None and len(stops) == 1:
                        output.stats.set_plain(self._joint.costs(1))
                    piece = Piece(rest, None, i)
                output.text += piece.text
                piece = piece._replace(partial=self._built.constrain.value(output.text, whole=False))
                if piece.text or piece.step is not None:
                    watch.pause()
                    yield piece
                    watch.go()
        if errors:
            if len(self.outputs) > 1:
                errors[0].add_note(f"{len(errors)} of {len(self.outputs)} answers failed; the others are complete")
            raise errors[0]

    def _open(self, output: Output, session: Session) -> None:
        output.stats.prompt_tokens = len(session.tokens)
        output.stats.cached_tokens = min(session.cached, len(session.tokens) - 1)  # a pass has one token at least
        output.stats.lossless = self._built.lossless and self._model.lossless
        if self._request.logprobs is not None:
            output.logprobs = []

    def _reading(self, sessions: Sequence[Session]) -> Callable[[], None] | None:
        """What tells the caller after each turn how much of the prompts is read, until all is; None where nobody asked."""
        tell, lengths = self._request.progress, [len(session.tokens) for session in sessions]
        if tell is None:
            return None
        told = [-1]

        def seen() -> None:
            read = sum(min(session.cached, length) for session, length in zip(sessions, lengths, strict=True))
            if told[0] < read:
                told[0] = read
                tell(read, sum(lengths))

        seen()
        return seen

    def _book(self, output: Output, step: Step, watch: _Watch) -> None:
        output.stats.add(step)
        output.stats.seconds = watch.busy()
        output.stats.first = output.stats.first or (output.stats.seconds if output.tokens or step.tokens else 0.0)
        output.tokens += step.tokens
        output.candidates = step.candidates or output.candidates
        output.log_evidence = output.log_evidence if step.log_evidence is None else step.log_evidence
        if output.logprobs is not None:
            output.logprobs += logprobs(step, self._request.logprobs or 0)

    @contextmanager
    def _sessions(self) -> Iterator[list[Session]]:
        """A session for each answer. Those made here are closed at the end; a session of the caller's keeps its cache."""
        prompts, n, given = self._asked
        forks: list[Session] = []
        if len(prompts) > 1:
            made = self._model.sessions(prompts)
            try:
                for session in made if n > 1 else ():
                    forward(session)  # so that the answers to a prompt share its cache
                    forks += [session.fork() for _ in range(n)]
                yield forks or made
            finally:
                for session in [*forks, *made]:
                    session.close()
            return
        session = given or self._model.session()
        if session.busy:
            raise DecoderyError("the session is busy with another answer: finish or drop that stream first")
        session.busy = True
        try:
            session.restart(prompts[0])
            if n > 1:
                forward(session)  # so that the answers share the prompt's cache
                forks += [session.fork() for _ in range(n)]
            yield forks or [session]
        finally:
            for fork in forks:
                fork.close()
            session.busy = False
            if given is None:
                session.close()

    def _stop(self) -> Stop:
        request = self._request
        return Stop(
            eos=(frozenset() if request.ignore_eos else self._model.eos) | request.stop_tokens,
            max_new_tokens=request.max_new_tokens,
            context=self._model.context,
            time_limit=request.time_limit,
            text=TextStream(self._model.text, request.stop, self._built.constrain.literal)
            if self._model.tokenizer is not None or request.stop
            else None,
        )


class _Watch:
    """Counts the seconds spent here; what the caller does between two pieces is not the engine's time."""

    def __init__(self) -> None:
        self._busy, self._since = 0.0, perf_counter()

    def busy(self) -> float:
        """So far."""
        return self._busy + perf_counter() - self._since

    def pause(self) -> None:
        """The caller's time begins."""
        self._busy = self.busy()

    def go(self) -> None:
        """The caller's time is over."""
        self._since = perf_counter()
