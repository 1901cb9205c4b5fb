"""Streaming text and stopping: whatever the borders of tokens, the pieces add up and nothing is taken back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from decodery.core.errors import BadPrompt
from decodery.core.step import Verdict
from decodery.core.stop import Stop
from decodery.core.text import Text, TextStream
from decodery.core.tree import TokenTree


def byte_level() -> Text:
    """One token a byte, and a few longer ones whose borders cut characters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)} | {"ĠĠ": 256, "<e>": 257, "Ã©": 258, "STOP": 259, "OP": 260}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Text(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>"), 261)


WORDS = ["<unk>", "▁a", "▁b", "c", "▁", ".", "ST", "OP", *[f"<0x{byte:02X}>" for byte in range(256)]]


def word_pieces() -> Text:
    """Pieces that decode differently at the start of a text, as SentencePiece's do."""
    vocab = {piece: i for i, piece in enumerate(WORDS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Text(PreTrainedTokenizerFast(tokenizer_object=tokenizer), len(vocab))


CODECS = {"byte level": byte_level(), "word pieces": word_pieces()}
TOKENS = st.lists(st.integers(1, 255), max_size=40)


@pytest.mark.parametrize("codec", CODECS)
@given(tokens=TOKENS)
def test_pieces_add_up_to_the_decode_of_all(codec: str, tokens: list[int]) -> None:
    stream = TextStream(CODECS[codec])
    pieces = []
    for token in tokens:
        assert not stream.push(token)
        pieces.append(stream.piece())
    pieces.append(stream.finish())
    whole = CODECS[codec].decode(tokens)
    assert "".join(pieces) == stream.text
    # With byte fallback, one invalid byte turns valid bytes before it into question marks: what was shown stays.
    assert stream.text == whole or (codec == "word pieces" and "\N{REPLACEMENT CHARACTER}" in whole)


@given(text=st.text(max_size=30))
def test_no_half_character_is_shown(text: str) -> None:
    codec = CODECS["byte level"]
    stream = TextStream(codec)
    for token in codec.encode(text):
        stream.push(token)
        stream.piece()
        assert text.startswith(stream.text)
    stream.finish()
    assert stream.text == text


@given(
    text=st.text("abSTOP ", max_size=40),
    stops=st.lists(st.text("abSTOP", min_size=1, max_size=4), min_size=1, max_size=3),
    step=st.integers(1, 5),
)
def test_stop_strings(text: str, stops: list[str], step: int) -> None:
    """The text ends before the stop string that is complete first, wherever tokens and steps end; nothing leaks."""
    codec = CODECS["byte level"]
    stream = TextStream(codec, tuple(stops))
    shown = ""
    for i, token in enumerate(codec.encode(text), 1):
        if stream.push(token):
            break
        if i % step == 0:
            shown += stream.piece()
    shown += stream.finish()
    complete = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if complete:
        first = min(complete)[0]
        starts = [at for end, at in complete if end == first]
        assert shown == text[: min(starts)]
        assert stream.stopped in stops
    else:
        assert shown == text
        assert stream.stopped is None
    assert shown == stream.text


def test_a_stop_string_inside_one_token_and_across_two() -> None:
    codec = CODECS["byte level"]
    stream = TextStream(codec, ("TOP",))
    assert stream.push(259)
    assert stream.finish() == "S"
    stream = TextStream(codec, ("TOP",))
    s, t = codec.encode("ST")
    assert not stream.push(s)
    assert stream.piece() == "S"
    assert not stream.push(t)
    assert stream.piece() == "", "T may begin the stop string"
    assert stream.push(260)
    assert stream.finish() == ""


@given(
    path=st.lists(st.integers(1, 9), max_size=5),
    extra=st.lists(st.integers(1, 9), max_size=2),
    limit=st.integers(1, 8),
    eos=st.sets(st.integers(1, 9), max_size=2),
)
def test_trim(path: list[int], extra: list[int], limit: int, eos: set[int]) -> None:
    """A verdict is cut behind the first token that ends the answer, whatever the step brought."""
    tree = TokenTree.chain(path)
    stop = Stop(eos=frozenset(eos), max_new_tokens=limit)
    tokens = path + extra
    cut = stop.trim(Verdict(tuple(range(len(path))), tuple(extra)), tree).tokens(tree)
    assert (stop.emitted, stop.reason) == (0, None), "to trim books nothing"
    stop.count(cut)
    ends = [i for i, token in enumerate(tokens, 1) if token in eos] + ([limit] if limit <= len(tokens) else [])
    assert cut == tokens[: min(ends, default=len(tokens))]
    assert stop.emitted == len(cut)
    if not tokens:
        assert stop.reason == "dead_end"
    elif not ends:
        assert stop.reason is None
    else:
        assert stop.reason == ("stop" if cut[-1] in eos else "length")


def test_bad_conversations() -> None:
    with pytest.raises(BadPrompt, match="no chat template"):
        CODECS["byte level"].chat([{"role": "user", "content": "x"}])
    codec: Any = byte_level()
    codec.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(BadPrompt, match="'role' and 'content'"):
        codec.chat([{"text": "x"}])
    assert codec.decode(codec.chat([{"role": "user", "content": "hey"}])) == "hey"
