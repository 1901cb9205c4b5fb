"""What can be said in a conversation beside messages, and conversations in files."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from decodery.cli.reading import read
from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole

HELP = {
    "/help": "this list",
    "/set NAME VALUE": "max-tokens, seed, plan, show-draft, raw; or a guide's first parameter: /set temperature 0.7",
    "/show": "the settings, and how long the conversation is",
    "/draft SPEC": "choose another drafter, e.g. /draft ngram:max=4",
    "/guide SPEC ...": "choose guides, e.g. /guide temperature:0.7 top-p:0.9; none clears them",
    "/system TEXT": "set the system message and start over",
    "/retry": "answer the last message again",
    "/edit [TEXT]": "change the last message, and answer it again",
    "/undo": "take back the last message and its answer",
    "/reset": "forget the conversation",
    "/save FILE": "write the conversation as JSON, as OpenAI's clients read it",
    "/load FILE": "go on with a conversation that was saved",
    "/copy": "put the last answer into the clipboard of the terminal",
    "/stats": "figures of the last answer",
    "/bye": "end; so do /exit, /quit and Ctrl-D",
    '"""': 'begins a message of several lines, which ends with """',
}

ENDS = ("/bye", "/exit", "/quit")
BLOCK = '"""'


def messages_in(file: str) -> list[dict[str, str]]:
    """The messages in a file: a list of them, or an object with ``messages`` as OpenAI's clients send it."""
    if not file:
        raise DecoderyError("/load needs a file name")
    try:
        found = json.loads(read(Path(file).expanduser()))
    except ValueError as error:
        raise DecoderyError(f"{file} holds no JSON: {error}") from error
    messages: Any = found.get("messages") if isinstance(found, dict) else found
    right = isinstance(messages, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in messages
    )
    if not right:
        raise DecoderyError(f"{file} holds no list of messages with a role and a content that is text")
    return [{"role": one["role"], "content": one["content"]} for one in messages]


def save_messages(file: str, messages: list[dict[str, str]]) -> None:
    """Write messages, whole or not at all."""
    if not file:
        raise DecoderyError("/save needs a file name")
    try:
        write_whole(file, json.dumps(messages, indent=1, ensure_ascii=False))
    except OSError as error:
        raise DecoderyError(f"the conversation is not saved: {error}") from error


def to_clipboard(text: str) -> None:
    """Hand a text to the terminal's clipboard (the escape sequence OSC 52, which most terminals know)."""
    if not sys.stdout.isatty():
        raise DecoderyError("there is no terminal whose clipboard could take it; /save writes a file")
    sys.stdout.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")
    sys.stdout.flush()
