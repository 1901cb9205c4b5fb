"""How likely a model finds a given text."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import torch

from decodery.core.errors import BadPrompt, DecoderyError
from decodery.core.tree import TokenTree
from decodery.core.values import Tensor
from decodery.model.model import Model
from decodery.model.turn import forward
from decodery.run.options import ChatOptions, template_from

STRETCH = 64
"""Tokens of a pass."""


class Score(NamedTuple):
    """The log-likelihood of a continuation in nats, in all and by token; ``greedy``: whether greedy decoding says just this."""

    logprob: float
    greedy: bool
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def score(model: Model, prompt: Any, continuation: Any, **template: Unpack[ChatOptions]) -> Score:
    """How likely ``continuation`` (a text or token ids) is after ``prompt`` (whatever ``decode`` takes), before any guide.

    The two are tokenised apart unless both are texts: then together, and the tokens behind those of the prompt count, as in
    the evaluation harness of EleutherAI. ``template``: ``tools``, ``documents`` and the like, as ``decode`` takes them.
    Raises ``BadPrompt`` where the continuation is empty or does not fit.
    """
    if unknown := template.keys() - ChatOptions.__annotations__.keys():
        raise DecoderyError(f"score takes no {unknown.pop()!r}; it takes {', '.join(ChatOptions.__annotations__)}")
    before = model.tokens(prompt, template_from(template))
    if isinstance(prompt, str) and isinstance(continuation, str):
        after = model.tokens(prompt + continuation)[len(before) :]
    else:
        after = model.pieces(continuation) if isinstance(continuation, str) else model.tokens(continuation)
    if not after:
        raise BadPrompt("the continuation is empty: give at least one token")
    if len(before) + len(after) > model.context:
        raise BadPrompt(
            f"prompt and continuation have {len(before) + len(after)} tokens, the model's context is {model.context}"
        )
    session, rows = model.session(before), list[Tensor]()
    try:
        step = STRETCH if session.can_draft else 1
        for start in range(0, len(after), step):
            tokens = after[start : start + step]
            rows.append(forward(session, TokenTree.chain(tokens[:-1])).logits)
            session.commit(tokens)
    finally:
        session.close()
    logs = torch.cat(rows).log_softmax(-1)
    chosen = tuple(float(logs[i, token]) for i, token in enumerate(after))
    greedy = all(int(row.argmax()) == token for row, token in zip(logs, after, strict=True))
    return Score(sum(chosen), greedy, tuple(after), chosen)
