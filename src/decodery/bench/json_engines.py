"""Engines that follow a JSON schema, with one face: ours, and those of others where they are installed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import llguidance

from decodery.constrain.lib.schemas import grammar_of
from decodery.constrain.lib.xgrammar import matcher_of
from decodery.core.errors import DecoderyError
from decodery.core.part import Model
from decodery.run.registry import made


class Follower(Protocol):
    """What was read of an answer so far."""

    def mask(self) -> object:
        """Compute the mask of what may follow."""

    def read(self, token: int) -> bool:
        """Read a token; whether it was allowed."""

    def may_end(self) -> bool: ...

    def forced(self) -> bool:
        """Whether only one token may follow, as far as the engine tells."""


Engine = Callable[[Mapping[str, Any]], Follower]
"""A schema -> a follower at its beginning. Raises ``ValueError`` where the schema is refused."""


def engine(name: str, model: Model) -> Engine:
    """An engine by name. Raises ``DecoderyError`` where there is none, or where it is not installed."""
    if name not in ENGINES:
        raise DecoderyError(f"no engine is called {name!r}; there are: {', '.join(ENGINES)}")
    try:
        return ENGINES[name](model)
    except ImportError as error:
        raise DecoderyError(f"the engine {name} is not installed: {error}") from error


class Ours:
    """The constraint ``json-schema``."""

    def __init__(self, model: Model, schema: Mapping[str, Any]) -> None:
        self._constraint = copy.copy(made("constrain", "json-schema", schema=schema)).bind(model)
        self._state = self._constraint.start(())

    def mask(self) -> object:
        return self._constraint.mask(self._state)

    def read(self, token: int) -> bool:
        after = self._constraint.advance(self._state, token)
        self._state = self._state if after is None else after
        return after is not None

    def may_end(self) -> bool:
        return bool(self._constraint.may_end(self._state))

    def forced(self) -> bool:
        return bool(self._constraint.forced(self._state))


class Matched:
    """A matcher of llguidance, or one with its face."""

    def __init__(self, matcher: Any) -> None:
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        self._matcher = matcher

    def mask(self) -> object:
        return self._matcher.compute_bitmask()

    def read(self, token: int) -> bool:
        return bool(self._matcher.try_consume_tokens([token]))

    def may_end(self) -> bool:
        return bool(self._matcher.is_accepting())

    def forced(self) -> bool:
        return bool(self._matcher.compute_ff_tokens())


class Enforced:
    """A parser of lm-format-enforcer over the tokenizer's prefix tree."""

    def __init__(self, data: Any, schema: Mapping[str, Any], eos: int) -> None:
        from lmformatenforcer import JsonSchemaParser, TokenEnforcer

        try:
            self._enforcer, self._tokens, self._eos = (
                TokenEnforcer(data, JsonSchemaParser(dict(schema))),
                list[int](),
                eos,
            )
        except Exception as error:  # its parser raises whatever comes
            raise ValueError(str(error)) from error

    def mask(self) -> Any:
        try:
            return self._enforcer.get_allowed_tokens(self._tokens).allowed_tokens
        except Exception as error:  # its parser raises whatever comes
            raise ValueError(str(error)) from error

    def read(self, token: int) -> bool:
        allowed = token in self.mask()
        self._tokens.append(token)
        return allowed

    def may_end(self) -> bool:
        return self._eos in self.mask()

    def forced(self) -> bool:
        return False


def _llguidance(model: Model) -> Engine:
    tokenizer = model.matcher_tokenizer()
    return lambda schema: Matched(llguidance.LLMatcher(tokenizer, grammar_of(schema, "spaced"), log_level=0))


def _xgrammar(model: Model) -> Engine:
    how = {"any_whitespace": False, "strict_mode": False, "separators": (", ", ": ")}
    return lambda schema: Matched(
        matcher_of(model, lambda compiler: compiler.compile_json_schema(json.dumps(schema), **how))
    )


def _enforcer(model: Any) -> Engine:
    from lmformatenforcer import TokenEnforcerTokenizerData

    words = model.matcher_tokenizer()
    first = words.tokenize_str("a")
    regular = [
        (t, words.decode_str([*first, t])[1:], words.decode_str([t])[:1] == " ")
        for t in range(model.vocab)
        if not words.is_special_token(t)
    ]
    eos = min(model.eos)
    data = TokenEnforcerTokenizerData(regular, words.decode_str, eos, False, model.vocab)
    return lambda schema: Enforced(data, schema, eos)


ENGINES: dict[str, Callable[[Any], Engine]] = {
    "decodery": lambda model: lambda schema: Ours(model, schema),
    "llguidance": _llguidance,
    "xgrammar": _xgrammar,
    "lm-format-enforcer": _enforcer,
}
