"""``decode`` and ``stream``: a model, a prompt, and how tokens are to be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Unpack, overload

from decodery.core.defaults import default_of
from decodery.core.errors import BadPrompt, DecoderyError
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.run.answer import Asked, Stream
from decodery.run.options import Options, Request, recipe_from, template_from
from decodery.run.output import Output
from decodery.run.recipe import Recipe


def stream(model: Model, prompt: Any, *, n: int | None = None, **options: Unpack[Options]) -> Stream:
    """Decode step by step; see ``decode`` for the arguments. Iterate over pieces of text, then read ``output``."""
    recipe = recipe_from(options)
    if (sampling := options.get("sampling")) is not None:
        if sampling != "model" or recipe.guide:
            raise DecoderyError(
                f'sampling= takes "model", and no guides beside it; not {sampling!r} with {len(recipe.guide)} guides'
            )
        recipe = recipe.replace(guide=model.facts.sampling)
    stop = options.get("stop", ())
    stops: list[Any] = [stop] if isinstance(stop, (str, int)) else list(stop)
    request = Request(
        options.get("max_new_tokens", 256),
        tuple(one for one in stops if not _is_token(one)),
        frozenset(int(one) for one in stops if _is_token(one)),
        options.get("time_limit"),
        options.get("ignore_eos", False),
        options.get("seed"),
        options.get("logprobs"),
        options.get("plan") or default_of("plan", "auto"),
        options.get("progress"),
    )
    session, template = options.get("session"), template_from(options)
    return Stream(model, _asked(model, prompt, template, session, 1 if n is None else n, recipe), recipe, request)


@overload
def decode(model: Model, prompt: str, *, n: None = None, **options: Unpack[Options]) -> Output: ...
@overload
def decode(model: Model, prompt: Any, *, n: int | None = None, **options: Unpack[Options]) -> Any: ...
def decode(model: Model, prompt: Any, *, n: int | None = None, **options: Unpack[Options]) -> Any:
    """Decode a prompt, or several at once.

    Args:
        model: from ``decodery.load``.
        prompt: a text (used as it is), messages (through the chat template), token ids, or a list of any of these.
        draft, verify, guide, constrain, search: parts by name, spec or instance; or all of them as ``recipe``.
            Greedy unless a guide samples (``guide="temperature:0.7"``). ``draft`` is "auto" unless it is given: lossless
            drafts that need no training; "none" is plain decoding.
        max_new_tokens, stop (texts and token ids, one or several), time_limit (seconds), ignore_eos: when to stop.
        seed: makes a run repeatable; each of several answers has its own randomness.
        sampling: "model" takes the guides that the model's generation config asks for (``model.facts.sampling``).
        n: this many answers to a prompt, sharing its cache.
        plan: how much to draft: "auto" (the default): the tree that promises most tokens per second, by the cost of a
            forward here (measured once, about a second) and the acceptance seen so far; "off" (all that the drafter
            proposes), or "fixed:N" (N nodes a step at most).
        progress: called while a long prompt is read, with the prompt tokens read so far and how many there are.
        logprobs: also report each token's log-probability and that many alternatives.
        tools, documents, continue_final_message, template: what the model's chat template is given beside messages, as in
            ``apply_chat_template`` of transformers: JSON schemas or functions; documents to answer from; True to go on with
            the last message instead of answering it; and whatever else the template reads, as a mapping:
            ``template={"enable_thinking": False}``. One that the template does not read is an error.
        session: from ``model.session()``; keeps the cache between calls, so a chat does not compute its past again.

    Returns:
        ``Output``; a list of them for a list of prompts or a given ``n``, and for both a list for each prompt.
    """
    outputs = stream(model, prompt, n=n, **options).finish()
    if n is not None and is_batch(prompt):
        return [outputs[i : i + n] for i in range(0, len(outputs), n)]
    return outputs[0] if n is None and not is_batch(prompt) else outputs


def _is_token(stop: object) -> bool:
    return isinstance(stop, Integral) and not isinstance(stop, bool)


def is_batch(prompt: Any) -> bool:
    """Whether this is a list of prompts rather than one prompt."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and not isinstance(prompt[0], (Integral, Mapping))


def _asked(
    model: Model, prompt: Any, template: Mapping[str, Any], session: Session | None, n: int, recipe: Recipe
) -> Asked:
    if n < 1:
        raise BadPrompt(f"n must be at least 1, not {n}")
    if n > 1 and not any(guide.samples for guide in recipe.guide):
        raise DecoderyError(
            f"n={n} answers of a greedy decoding would be equal; add a guide that samples, e.g. temperature"
        )
    if is_batch(prompt):
        if session is not None:
            raise BadPrompt("session= goes with one prompt, not with a list of them")
        return Asked([model.tokens(one, template) for one in prompt], n)
    if session is not None and (session.arena.owner is not model.source or session.variant != model.variant):
        raise DecoderyError(f"the session is of another model than {model.name}: make one with model.session()")
    return Asked([model.tokens(prompt, template)], n, session)
