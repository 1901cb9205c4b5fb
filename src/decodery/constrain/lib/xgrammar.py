"""xgrammar's matcher with the face of llguidance's, and what of a schema xgrammar does not enforce."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from decodery.constrain.lib.schemas import inner_schemas
from decodery.core.errors import DecoderyError
from decodery.core.part import Model

ENFORCED = frozenset(
    [
        "$defs",
        "$id",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "definitions",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "prefixItems",
        "properties",
        "required",
        "type",
    ]
)
ANNOTATIONS = frozenset(
    ["$comment", "default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly"]
)
FORMATS = frozenset(["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"])


class Matcher:
    """An xgrammar matcher; counts nothing and never fails, so it is never in error."""

    def __init__(self, matcher: Any, vocab: int) -> None:
        self._matcher, self._vocab = matcher, vocab

    def deep_copy(self) -> Matcher:
        return Matcher(self._matcher.fork(), self._vocab)

    def try_consume_tokens(self, tokens: list[int]) -> int:
        """How many were read. A token alone must be in the mask, which leaves out some that the matcher would accept."""
        if len(tokens) == 1 and not self.compute_bitmask()[tokens[0] // 8] >> tokens[0] % 8 & 1:
            return 0
        return next((i for i, token in enumerate(tokens) if not self._matcher.accept_token(token)), len(tokens))

    def compute_bitmask(self) -> bytes:
        bits = np.full((1, (self._vocab + 31) // 32), -1, dtype=np.int32)
        self._matcher.fill_next_token_bitmask(bits)
        return bits.tobytes()

    def compute_ff_tokens(self) -> list[int]:
        """Nothing: xgrammar forces texts, not tokens, and its mask allows every way to write them."""
        return []

    def is_accepting(self) -> bool:
        return bool(self._matcher.is_completed())

    def is_stopped(self) -> bool:
        return bool(self._matcher.is_terminated())

    def is_error(self) -> bool:
        return False

    def get_error(self) -> str:
        return ""


@lru_cache(4)
def compiler_of(tokenizer: Any, vocab: int, eos: tuple[int, ...]) -> Any:
    """The compiler for a tokenizer, given as llguidance reads it."""
    import xgrammar

    # Texts no grammar can have stand for special tokens, so that these are never allowed.
    words = [b"" if tokenizer.is_special_token(t) else tokenizer.decode_bytes([t]) for t in range(tokenizer.vocab_size)]
    info = xgrammar.TokenizerInfo(
        words[:vocab], xgrammar.VocabType.RAW, vocab_size=vocab, stop_token_ids=list(eos) or []
    )
    return xgrammar.GrammarCompiler(info, max_threads=1)


def matcher_of(model: Model, compile_: Callable[[Any], Any]) -> Matcher:
    """The matcher of what ``compile_`` makes with xgrammar's compiler. Raises ``ValueError`` where it refuses."""
    try:
        import xgrammar
    except ImportError as error:
        raise DecoderyError("engine=xgrammar needs the library: pip install xgrammar") from error
    compiler = compiler_of(model.matcher_tokenizer(), model.vocab, tuple(sorted(model.eos)))
    try:
        compiled = compile_(compiler)
    except RuntimeError as error:  # it says where in its own source first
        raise ValueError(str(error).partition(": ")[2].strip() or str(error)) from error
    return Matcher(xgrammar.GrammarMatcher(compiled), model.vocab)


def left_out(schema: Any, place: str = "#") -> Iterator[str]:
    """What of a schema xgrammar would pass over without a word, with its place."""
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        if key not in ENFORCED | ANNOTATIONS and not key.startswith("x-"):
            yield f"{place}: {key} is not enforced by xgrammar"
        elif key == "$ref" and not str(value).startswith("#"):
            yield f"{place}: the reference {value!r} leads out of the schema, and nothing is fetched"
        elif key == "pattern" and re.search(r"\(\?[=!<]|\\[1-9bB]", str(value)):
            yield f"{place}: pattern {value!r} is not regular, and xgrammar passes over that"
        elif key == "format" and value not in FORMATS:
            yield f"{place}: format {value!r} is not enforced by xgrammar"
        elif key == "items" and isinstance(value, list):
            yield f"{place}: items as a list is not enforced by xgrammar"
    for name, inner in inner_schemas(schema):
        yield from left_out(inner, f"{place}/{name}")
