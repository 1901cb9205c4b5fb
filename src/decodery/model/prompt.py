"""What counts as a prompt, whatever type it comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from decodery.core.errors import BadPrompt


def is_conversation(prompt: Any) -> bool:
    """Whether it is a list of messages."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and all(isinstance(part, Mapping) for part in prompt)


def kind_of(prompt: Any) -> str:
    """What a prompt is, in a word or two."""
    return "a text" if isinstance(prompt, str) else "token ids" if not is_conversation(prompt) else "messages"


def text_of(data: bytes | bytearray) -> str:
    """Bytes as the text that they are in UTF-8. Raises ``BadPrompt`` where they are none."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise BadPrompt(f"the prompt is bytes that are no UTF-8 text (byte {error.start}): give a text") from error


def ids_of(prompt: Any) -> list[int]:
    """Token ids in a list, an array, a tensor (of one row) or a ``BatchEncoding``. Raises ``BadPrompt`` for what is none."""
    if isinstance(prompt, Mapping) and "input_ids" in prompt:
        prompt = prompt["input_ids"]
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list):
            (prompt,) = prompt
    ids = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if ids is not prompt and isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], list):
        (ids,) = ids  # as tokenizers give it: a batch of one
    if ids is not prompt and isinstance(ids, list) and any(isinstance(row, list) for row in ids):
        raise BadPrompt(f"a {type(prompt).__name__} of {len(ids)} rows is no prompt: give several prompts as a list")
    if not isinstance(ids, Sequence) or isinstance(ids, (bytes, bytearray, memoryview, str)):
        raise BadPrompt(f"a prompt is a text, messages, or token ids; this is {_short(prompt)}")
    for token in ids:
        if not isinstance(token, Integral) or isinstance(token, bool):
            raise BadPrompt(f"a prompt is a text, messages, or token ids; {_short(token)} in it is none of them")
    return [int(token) for token in ids]


def sound(text: str) -> str:
    """The text. Raises ``BadPrompt`` where it holds half a character, as Python reads bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadPrompt(f"the text is no valid Unicode at character {error.start}: give it in UTF-8") from error
    return text


def _short(prompt: object) -> str:
    return f"{type(prompt).__name__}: {prompt!r:.60}"
