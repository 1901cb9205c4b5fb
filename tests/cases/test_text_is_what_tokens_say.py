"""The text is what the tokens say: hidden tokens, stop strings of special tokens, first spaces, the token that ends."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from time import process_time
from typing import Any

import pytest
import torch
import transformers

import decodery
from decodery.core.text import TextStream

from .text_common import SPACE, byte_level, codec, force, model, sentencepiece, suffixes, word_pieces, words

PIECES = [f"{SPACE}hello", f"{SPACE}world", f"{SPACE}{SPACE}", "hello", "é", ".", "\N{REPLACEMENT CHARACTER}"]
TOKENIZERS: dict[str, Any] = {
    "words": words(6),
    "bytes": byte_level(extra=["ĠâĢ", "âĢĶ", "Ċâ", "ab"]),
    "sentencepiece": sentencepiece(PIECES, ("<turn>",)),
    "two spaces taken off": sentencepiece(PIECES, ("<turn>",), strip=2),
    "no space taken off": sentencepiece(PIECES, ("<turn>",), strip=0),
    "metaspace": sentencepiece(PIECES, ("<turn>",), metaspace=True),
    "word pieces": word_pieces(),
    "suffixes": suffixes(),
    "python, bytes": transformers.ByT5Tokenizer(),
}


def shown(stream: TextStream, tokens: Sequence[int]) -> tuple[str, int]:
    """The pieces of these tokens put together, and how many tokens came before a stop string."""
    text = ""
    for token in tokens:
        stopped = stream.push(token)
        text += stream.piece()
        assert text == stream.text
        if stopped:
            break
    return text + stream.finish(), len(stream.tokens)


def some(tok: Any, rng: random.Random, most: int = 30) -> list[int]:
    """Tokens of every kind: special and unknown ones, valid characters byte by byte, and bytes at random."""
    special = [t for t in tok.all_special_ids if t is not None]
    kinds = [
        lambda: [rng.randrange(len(tok))],
        lambda: [rng.randrange(max(len(tok) - 14, 0), len(tok))],
        lambda: [rng.choice(special)] * rng.randint(1, 3) if special else [],
        lambda: [len(tok) + 3] if tok.is_fast else [],
        lambda: list(tok(rng.choice(["—", "日", "é ", "\n", " ", "\t\n", "🙂"]), add_special_tokens=False).input_ids),
    ]
    return [token for _ in range(rng.randrange(most)) for token in rng.choice(kinds)()]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_pieces_are_the_decode_of_all_tokens(name: str) -> None:
    tok, rng = TOKENIZERS[name], random.Random(name)
    text = codec(tok)
    for _ in range(400):
        tokens = some(tok, rng)
        want = tok.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert shown(TextStream(text), tokens)[0] == want, tokens
        unseen = TextStream(text, ("never to be seen",))
        assert shown(unseen, tokens)[0] == want, tokens


@pytest.mark.parametrize("between", [["<turn>"], ["<turn>"] * 2, ["<unk>"], ["</s>"], ["<s>", "<turn>"], []])
def test_a_hidden_token_takes_no_space_along(between: list[str]) -> None:
    tok = TOKENIZERS["sentencepiece"]
    tokens = tok.convert_tokens_to_ids([f"{SPACE}hello", *between, f"{SPACE}world"])
    options: dict[str, Any] = {"guide": force(tokens, 3), "max_new_tokens": len(tokens), "ignore_eos": True}
    pieces = list(decodery.stream(model(tok), [1, 5, 6], **options))
    assert "".join(piece.text for piece in pieces) == tok.decode(tokens, skip_special_tokens=True) == "hello world"


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("sentencepiece", ["<turn>"]),
        ("sentencepiece", ["<0xC3>", "<0xA9>"]),
        ("sentencepiece", ["<0xFF>"]),
        ("sentencepiece", [SPACE]),
        ("bytes", ["Ã"]),
        ("bytes", ["<turn>", "Ã"]),
        ("words", ["<turn>"]),
    ],
)
def test_the_cost_of_a_token_does_not_grow(name: str, unit: list[str]) -> None:
    tok = TOKENIZERS[name]
    tokens = tok.convert_tokens_to_ids(unit) * (6000 // len(unit))
    stream = TextStream(codec(tok), ("never to be seen",))
    times = []
    for part in (tokens[:2000], tokens[2000:4000], tokens[4000:]):
        start = process_time()
        for token in part:
            stream.push(token)
            stream.piece()
        times.append(process_time() - start)
    assert times[2] < 4 * times[0] + 0.1, times


STOPS = [
    "<turn>",
    "hello<turn>",
    "<turn> world",
    "<turn><turn>",
    "lo<tur",
    "n> wo",
    " world",
    "\n",
    "é",
    "</s>",
    "a<",
    "—",
]


@pytest.mark.parametrize("name", ["sentencepiece", "no space taken off", "bytes"])
def test_stop_strings_are_found_where_transformers_finds_them(name: str) -> None:
    """Every prefix of an answer is asked; the text ends before the stop string."""
    tok, rng = TOKENIZERS[name], random.Random(name)
    parts = [["<turn>"], ["</s>" if name != "bytes" else "<end>"]]
    parts += [tok.tokenize(part) for part in ("hello", "world", "\n", "é", "a", "—", " ")] + [[f"{SPACE}world"]]
    known = tok.get_vocab()
    parts = [part for part in parts if all(token in known for token in part)]
    for _ in range(60):
        stop = rng.choice(STOPS)
        tokens = tok.convert_tokens_to_ids([t for _ in range(12) for t in rng.choice(parts)])
        criteria = transformers.StopStringCriteria(tok, [stop])
        found = (n for n in range(1, len(tokens) + 1) if bool(criteria(torch.tensor([tokens[:n]]), None)[0]))
        want = next(found, None)
        stream = TextStream(codec(tok), (stop,))
        text, taken = shown(stream, tokens)
        assert (taken if stream.stopped else None) == want, (stop, tok.convert_ids_to_tokens(tokens))
        if want is not None:
            before = tok.decode(tokens[:want]).rpartition(stop)[0]
            for special in ("<turn>", "</s>", "<end>"):
                before = before.replace(special, "")
            before = before.partition("<")[0]  # the stop string began inside a special token, which is not shown
            assert text in (before, before.removeprefix(" ")), (stop, tok.convert_ids_to_tokens(tokens[:want]))


def test_a_special_token_stops_an_answer() -> None:
    tok = TOKENIZERS["sentencepiece"]
    tokens = tok.convert_tokens_to_ids([f"{SPACE}hello", "<turn>", f"{SPACE}world", f"{SPACE}world"])
    output = decodery.decode(model(tok), [1, 5, 6], guide=force(tokens, 3), max_new_tokens=4, stop=["<turn>"])
    assert (output.tokens, output.finish_reason, output.text) == (tokens[:2], "stop", "hello")
    output = decodery.decode(model(tok), [1, 5, 6], guide=force(tokens, 3), max_new_tokens=4, stop=["llo<turn>"])
    assert (output.tokens, output.finish_reason, output.text) == (tokens[:2], "stop", "he")


@pytest.mark.parametrize("search", [None, "beam:width=2"])
@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        ({"regex": {"pattern": " (yes|no)"}}, " (yes|no)"),
        ({"choice": {"options": [" yes", " no"]}}, " yes| no"),
        ({"regex": {"pattern": "( yes){2}"}}, "( yes){2}"),
        ({"regex": {"pattern": "  yes"}}, "  yes"),
        ({"regex": {"pattern": " \n\té"}}, " \n\té"),
        ({"regex": {"pattern": "yes|no"}}, "yes|no"),
    ],
)
def test_a_constrained_answer_matches(spec: Any, pattern: str, search: str | None) -> None:
    pieces = [f"{SPACE}yes", f"{SPACE}no", f"{SPACE}a", "yes", "no", f"{SPACE}{SPACE}"]
    for tok in (sentencepiece(pieces), sentencepiece(pieces, strip=2), sentencepiece(pieces, metaspace=True)):
        output = decodery.decode(model(tok), "hi", constrain=spec, max_new_tokens=12, search=search)
        assert re.fullmatch(pattern, output.text), (output.text, output.finish_reason)


def test_a_plain_answer_begins_as_decode_begins_it() -> None:
    tok = TOKENIZERS["sentencepiece"]
    tokens = tok.convert_tokens_to_ids([f"{SPACE}hello", f"{SPACE}world"])
    assert decodery.decode(model(tok), "hi", guide=force(tokens, len(tok("hi").input_ids)), max_new_tokens=2).text == (
        "hello world"
    )


def test_the_token_that_ends_an_answer_is_no_part_of_its_text() -> None:
    tok = byte_level()
    newline = tok("\n").input_ids[0]
    loaded = model(tok, eos_token_id=[0, newline])
    for seed in range(6):
        options: dict[str, Any] = {"guide": "temperature:1", "seed": seed, "max_new_tokens": 8}
        output = decodery.decode(loaded, "hi", constrain="regex:[a-z]{3}", **options)
        assert re.fullmatch("[a-z]{3}", output.text)
        assert output.finish_reason == "stop"
    tokens = [*tok("ab").input_ids, newline]
    output = decodery.decode(loaded, "hi", guide=force(tokens, 2), max_new_tokens=5)
    assert (output.text, output.tokens, output.finish_reason) == ("ab", tokens, "stop")
    output = decodery.decode(loaded, "hi", guide=force(tokens, 2), max_new_tokens=3, ignore_eos=True)
    assert output.text == "ab\n"
    output = decodery.decode(loaded, "hi", guide=force(tokens, 2), max_new_tokens=5, stop="b\n")
    assert output.text == "a"
