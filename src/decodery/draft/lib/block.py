"""A block of drafts that is written while something else runs."""

from __future__ import annotations

from threading import Thread
from weakref import ref

from decodery.core.chooser import Chooser
from decodery.core.law import Law
from decodery.core.roles import Drafter, Laws
from decodery.core.values import Tensor
from decodery.model.session import Session
from decodery.model.turn import forward

Drawn = tuple[int, Tensor | None]
"""A token and the law it was drawn from, None under a greedy law."""


class Block(Thread):
    """Up to ``length`` tokens of a draft model after ``words``; by ``start()`` in a thread, by ``run()`` at once.

    The thread ends by itself, and soon once it is ``dropped`` or nobody who could ask for its tokens is left. It uses
    nothing that its owner uses meanwhile: its own arena, its own chooser, a copy of the words.
    """

    def __init__(
        self, owner: Drafter, session: Session, words: list[int], prompt: int, length: int, laws: Laws, rng: Chooser
    ) -> None:
        super().__init__(name="pearl")
        self.drawn: list[Drawn] = []
        self.dropped = False
        self._error: BaseException | None = None
        self._owner = ref(owner)
        self._session, self._words, self._prompt, self._length = session, words, prompt, length
        self._laws, self._rng = laws, rng

    def run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # for the caller, who waits in collect()
            self._error = error

    def collect(self) -> list[Drawn]:
        """Wait for the end; the tokens there are. Raises what was raised in the thread."""
        if self.ident is not None:
            self.join()
        if self._error is not None:
            raise self._error
        return self.drawn

    def _write(self) -> None:
        self._session.restart(self._words, self._prompt)
        while len(self.drawn) < self._length:
            # The first one guesses the verifier's own token, to which no law of a draft is ever compared: the likeliest.
            law = Law(self._laws(forward(self._session)).logits, greedy=self._laws.greedy or not self.drawn)
            if (q := law.row(0)) is None:
                return
            token = int(q.argmax()) if law.greedy else self._rng.pick(q)
            self.drawn.append((token, None if self._laws.greedy else q))
            self._session.commit([token])
            # Not before the first: what the draft's cache then holds, and so its rounding, would depend on the clock.
            if self.dropped or self._owner() is None:
                return
