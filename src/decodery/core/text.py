"""Text in and out: chat templates, streaming that never shows half a character, stop strings across token borders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from decodery.core.errors import BadModel, BadPrompt

Message = Mapping[str, Any]


@dataclass
class Text:
    """A Hugging Face tokenizer with the few verbs decoding needs."""

    tokenizer: PreTrainedTokenizerBase
    vocab: int

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, special tokens as the tokenizer adds them."""
        return list(self.tokenizer(text).input_ids)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation through the model's chat template, ready for the assistant's answer."""
        if self.tokenizer.chat_template is None:
            raise BadPrompt(
                "this model's tokenizer has no chat template: pass the prompt as a string instead of messages"
            )
        for message in messages:
            if not {"role", "content"} <= message.keys():
                raise BadPrompt(f"a message needs 'role' and 'content', this one has {sorted(message)}")
        conversation = [dict(message) for message in messages]
        encoded: Any = self.tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer, special tokens left out."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not isinstance(text, str):
            raise BadModel(f"the tokenizer decoded to {type(text).__name__}, not to text")
        return text

    def pieces(self, text: str) -> list[int]:
        """Tokens of a piece of a longer text: no special token is added."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all tokens and their ids."""
        return hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()[:32]

    @cached_property
    def matcher_tokenizer(self) -> Any:
        """The tokenizer as llguidance reads it; takes about a second, once."""
        import llguidance.hf

        try:
            return llguidance.hf.from_tokenizer(self.tokenizer, n_vocab=self.vocab)  # type: ignore[arg-type]
        except ValueError as error:
            raise BadModel(
                f"constraints need a byte-level or SentencePiece tokenizer; llguidance cannot read this one: {error}"
            ) from error


@dataclass
class TextStream:
    """Tokens in, text out, as early as it is certain.

    What has been shown is never taken back: half a character waits for its rest, and text that may be the beginning of a
    stop string waits until it is not. ``"".join`` of all pieces equals ``text`` and, without a stop string, the
    tokenizer's decode of all tokens (unless later bytes make earlier ones invalid UTF-8: what was shown stays).
    """

    codec: Text
    stops: tuple[str, ...] = ()
    tokens: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """For each token, how many characters were certain once it had come."""
    stopped: str | None = None
    """The stop string that was found; the text ends before it."""
    _known: str = ""
    _shown: int = 0
    _anchor: int = 0
    _settled: int = 0

    def push(self, token: int) -> bool:
        """Take one token; True if a stop string is now complete."""
        self.tokens.append(token)
        before = self.codec.decode(self.tokens[self._anchor : self._settled])
        now = self.codec.decode(self.tokens[self._anchor :])
        if now.startswith(before) and not now.endswith("\N{REPLACEMENT CHARACTER}"):
            self._extend(now[len(before) :])
            self._anchor, self._settled = self._settled, len(self.tokens)
        self.ends.append(len(self._known))
        return self.stopped is not None

    def piece(self) -> str:
        """The text that is certain and was not shown yet."""
        end = len(self._known) if self.stopped is not None else len(self._known) - self._held()
        piece, self._shown = self._known[self._shown : end], max(self._shown, end)
        return piece

    def finish(self) -> str:
        """The rest of the text, once no token follows."""
        if self.stopped is None:
            whole = self.codec.decode(self.tokens)
            kept = whole.startswith(self._known)
            self._extend(whole[len(self._known) :] if kept else self.codec.decode(self.tokens[self._settled :]))
        piece, self._shown = self._known[self._shown :], len(self._known)
        return piece

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return self._known[: self._shown]

    def fork(self) -> TextStream:
        """The text of another answer that goes on from here."""
        return replace(self, tokens=list(self.tokens), ends=list(self.ends))

    def _extend(self, fresh: str) -> None:
        longest = max(map(len, self.stops), default=0)
        start = max(0, len(self._known) - longest + 1)
        self._known += fresh
        found = [(at, stop) for stop in self.stops if (at := self._known.find(stop, start)) >= 0]
        if found:
            at, self.stopped = min(found)
            self._known = self._known[:at]

    def _held(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        return max(
            (n for stop in self.stops for n in range(1, len(stop)) if self._known.endswith(stop[:n])),
            default=0,
        )
