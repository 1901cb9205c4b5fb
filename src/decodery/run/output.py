"""What an answer is, as its caller gets it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

from decodery.core.roles import Constraint
from decodery.core.stats import Stats
from decodery.core.step import Step
from decodery.core.text import TextStream
from decodery.core.values import Candidate

LOG = logging.getLogger(__name__)


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
    ``logprobs`` is filled on request; ``candidates`` by searches, ``log_evidence`` by those that estimate it: the
    log-probability (nats) that an answer of the model keeps the constraint. ``parsed``: what the text stands for under a
    constraint that can read it (an object for JSON, an instance of the Python type that was the schema); None where the
    answer was cut off.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = ""
    stats: Stats = field(default_factory=Stats)
    logprobs: list[Chosen] | None = None
    candidates: list[Candidate] = field(default_factory=list)
    log_evidence: float | None = None
    parsed: Any = None

    def _repr_html_(self) -> str:
        """What a notebook shows: the text, the figures, and the candidates of a search."""
        rows = "".join(f"<tr><td>{c.score:.3f}</td><td>{len(c.tokens)}</td></tr>" for c in self.candidates)
        table = f"<table><tr><th>score</th><th>tokens</th></tr>{rows}</table>" if rows else ""
        figures = f"{self.stats.line()} · {self.finish_reason or 'not finished'}"
        return f'<pre style="white-space: pre-wrap">{escape(self.text)}</pre><small>{escape(figures)}</small>{table}'


class Piece(NamedTuple):
    """What one step added to an answer: text that is final, and the step behind it.

    ``step`` is None for what was held back until the end; ``answer`` says which of several answers this belongs to;
    ``drafted`` how many characters of the text came from accepted drafts (they stand before the verifier's own);
    ``partial`` what the answer so far stands for, under a constraint that can read it.
    """

    text: str
    step: Step | None
    answer: int = 0
    drafted: int = 0
    partial: Any = None


def parsed(constrain: Constraint, output: Output, rest: str) -> Any:
    """What a whole answer stands for; ``rest`` is the end of its text. None where it was cut off, or where it is refused."""
    if output.finish_reason != "stop":
        return None
    try:
        return constrain.value(output.text + rest)
    except ValueError as error:  # well formed, but a validator of the user's own says no
        LOG.warning("the answer cannot be parsed: %s", error)
        return None


def logprobs(step: Step, top: int) -> list[Chosen]:
    """The committed tokens of a step under the model's own law, with the ``top`` likeliest alternatives."""
    rows = [0, *(row for i in step.verdict.path if (row := step.rows.at(i)) is not None)][: len(step.tokens)]
    assert len(rows) == len(step.tokens), "a token was committed without a row"
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


def piece_of(text: TextStream | None, step: Step, answer: int) -> Piece:
    """What a step adds to the text shown, and how far drafts reach into it."""
    if text is None:
        return Piece("", step, answer)
    before, fresh = len(text.text), text.piece()
    accepted = len(text.ends) - len(step.tokens) + len(step.verdict.path)
    reach = text.ends[accepted - 1] - before if step.verdict.path else 0
    return Piece(fresh, step, answer, min(max(reach, 0), len(fresh)))
