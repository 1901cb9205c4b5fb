"""A tokenizer as decoding needs it: text to tokens and back, and what each token shows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from decodery.core.errors import BadModel, BadPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]

ANY_TEMPLATE = frozenset({"chat_template", "sanitize_control_tokens"})
"""Arguments of ``apply_chat_template`` that act whatever the template says."""
OURS = frozenset(
    {"add_generation_prompt", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"}
)
"""Arguments of ``apply_chat_template`` that decide what it returns, and so are not the caller's here."""


@dataclass
class Text:
    """A Hugging Face tokenizer with the few verbs decoding needs."""

    tokenizer: PreTrainedTokenizerBase
    vocab: int
    _names: dict[int, str | None] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, special tokens as the tokenizer adds them."""
        return list(self.tokenizer(_sound(text)).input_ids)

    def chat(self, messages: Sequence[Message], arguments: Mapping[str, Any] | None = None) -> list[int]:
        """Tokens of a conversation through the model's chat template, ready for the assistant's answer.

        ``arguments``: what ``apply_chat_template`` of transformers takes beside the messages, such as ``tools``. Raises
        ``BadPrompt`` for those that this model's template does not read, and for whatever the template refuses.
        """
        given = dict(arguments or {})
        if self.tokenizer.chat_template is None and not given.get("chat_template"):
            raise BadPrompt(
                "this model's tokenizer has no chat template: pass the prompt as a string instead of messages"
            )
        for message in messages:
            if not {"role", "content"} <= message.keys() and not {"role", "tool_calls"} <= message.keys():
                raise BadPrompt(f"a message needs 'role' and 'content', this one has {sorted(message)}")
            _sound(str(message.get("content", "")))
        self._all_read(given)
        conversation, goes_on = [dict(message) for message in messages], bool(given.get("continue_final_message"))
        try:
            encoded: Any = self.tokenizer.apply_chat_template(
                conversation, add_generation_prompt=not goes_on, return_dict=True, **given
            )
        except Exception as error:  # a template is a program: what it may raise, nobody can list
            reason = str(error) or type(error).__name__
            raise BadPrompt(f"the model's chat template refuses this conversation: {reason}") from error
        return list(encoded["input_ids"])

    def _all_read(self, given: Mapping[str, Any]) -> None:
        """Raise ``BadPrompt`` where the chat template cannot read an argument, for it never names it."""
        if mine := sorted(given.keys() & OURS):
            raise BadPrompt(f"template= cannot set {', '.join(mine)}, for messages become token ids here; leave it out")
        try:
            source = self.tokenizer.get_chat_template(given.get("chat_template"), given.get("tools"))
        except ValueError as error:
            raise BadPrompt(f"the model's chat template cannot be chosen: {error}") from error
        for name in given.keys() - ANY_TEMPLATE - {"continue_final_message"}:
            if not re.search(rf"\b{re.escape(name)}\b", source):
                raise BadPrompt(
                    f"{name} has no effect, for this model's chat template does not read it: leave it out, or say in a "
                    "message what the model should know"
                )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer, special tokens left out."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not isinstance(text, str):
            raise BadModel(f"the tokenizer decoded to {type(text).__name__}, not to text")
        return text

    def pieces(self, text: str) -> list[int]:
        """Tokens of a piece of a longer text: no special token is added."""
        return list(self.tokenizer(_sound(text), add_special_tokens=False).input_ids)

    def hidden(self, token: int) -> str | None:
        """The name of a token that ``decode`` leaves out, a special one for instance; None for a token with text.

        An id that the tokenizer does not know has no name: the answer is then empty.
        """
        if token not in self._names:
            name: Any = None
            with suppress(IndexError, KeyError, OverflowError, ValueError):
                name = self.tokenizer.convert_ids_to_tokens(token)
            self._names[token] = None if isinstance(name, str) and token not in self._special else str(name or "")
        return self._names[token]

    @cached_property
    def _special(self) -> frozenset[int]:
        added = {token for token, entry in self.tokenizer.added_tokens_decoder.items() if entry.special}
        return frozenset(t for t in added | set(self.tokenizer.all_special_ids) if not self.decode([t]))

    @cached_property
    def bytes(self) -> dict[int, int]:
        """The tokens that are one byte each, where they stand for characters that the vocabulary lacks (byte fallback)."""
        letter: Any = self.tokenizer.convert_tokens_to_ids("<0x41>")
        if letter is None or self.tokenizer.convert_ids_to_tokens(letter) != "<0x41>" or self.decode([letter]) != "A":
            return {}
        names = {f"<0x{value:02X}>": value for value in range(256)}
        vocabulary = self.tokenizer.get_vocab()
        return {vocabulary[name]: value for name, value in names.items() if name in vocabulary}

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """A token that is a word or part of one: behind it, a tokenizer that takes off the first space leaves it."""
        tokens = (t for t in range(len(self.tokenizer)) if self.hidden(t) is None and t not in self.bytes)
        return next(((t,) for t in tokens if self.decode([t]).isalnum()), ())

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all tokens and their ids."""
        vocabulary = self.tokenizer.get_vocab()
        tokens = [(name, vocabulary[name]) for name in sorted(vocabulary)]  # half as long as to sort the pairs
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:32]

    @cached_property
    def matcher_tokenizer(self) -> Any:
        """The tokenizer as llguidance reads it; takes about a second, once."""
        import llguidance.hf

        try:
            return llguidance.hf.from_tokenizer(self._with_plain_spaces(), n_vocab=self.vocab)  # type: ignore[arg-type]
        except ValueError as error:
            raise BadModel(
                f"constraints need a byte-level or SentencePiece tokenizer; llguidance cannot read this one: {error}"
            ) from error

    def _with_plain_spaces(self) -> PreTrainedTokenizerBase:
        """This tokenizer, or one whose spaces llguidance recognises: it reads "Replace", but not "Metaspace"."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        found = re.search('Metaspace\\(replacement="(.)"', str(backend and backend.decoder))
        if backend is None or found is None:
            return self.tokenizer
        from tokenizers import decoders
        from transformers import PreTrainedTokenizerFast

        backend = copy(backend)
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Replace(found[1], " ")])
        return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=self.tokenizer.eos_token)  # type: ignore[no-untyped-call]


def _sound(text: str) -> str:
    """A text that can be written in UTF-8; bytes that were no UTF-8 come from the command line as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = ascii(text[max(error.start - 10, 0) : error.end + 10])
        raise BadPrompt(f"this text is not valid Unicode at character {error.start}: {shown}") from error
    return text
