"""llama.cpp's grammars: what the translation allows is what the notation means, character by character."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.constrain.lib.gbnf import to_lark
from decodery.model.toy import tokenizer_of

GRAMMARS = Path(__file__).parent / "grammars"
LETTERS = "abc"
TOKENIZER = tokenizer_of([b"a", b"b", b"c"], [])
BYTES = tokenizer_of([bytes([i]) for i in range(256)], [])

# An expression of a grammar: ("lit", text), ("set", letters, negated), ("ref", number), ("seq"/"alt", [...]), ("rep", x, m, n).
Expression = Any


def leaves(rules: int) -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.tuples(st.just("lit"), st.text(LETTERS, min_size=1, max_size=3)),
        st.tuples(st.just("set"), st.sets(st.sampled_from(LETTERS), min_size=1, max_size=2), st.booleans()),
        st.tuples(st.just("ref"), st.integers(0, rules - 1)),
    )


def larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(inner, min_size=2, max_size=3)
    counts = st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (1, 2), (0, 2), (2, None)])
    return st.one_of(
        st.tuples(st.just("seq"), several),
        st.tuples(st.just("alt"), several),
        st.builds(lambda one, count: ("rep", one, *count), inner, counts),
    )


GRAMMAR = st.integers(1, 3).flatmap(
    lambda rules: st.lists(st.recursive(leaves(rules), larger, max_leaves=6), min_size=rules, max_size=rules)
)


def written(one: Expression) -> str:
    match one:
        case ("lit", text):
            return json.dumps(text)
        case ("set", letters, negated):
            return f"[{'^' * negated}{''.join(sorted(letters))}]"
        case ("ref", number):
            return "root" if number == 0 else f"rule-{number}"
        case ("seq", items):
            return "(" + " ".join(map(written, items)) + ")"
        case ("alt", items):
            return "(" + " | ".join(map(written, items)) + ")"
        case ("rep", item, least, most):
            return f"({written(item)}){{{least},{'' if most is None else most}}}"
    raise AssertionError(one)


def ends(rules: list[Expression], text: str) -> dict[tuple[int, int], set[int]]:
    """For each rule and place in the text where it may end: the least solution, found by growing from nothing."""
    known: dict[tuple[int, int], set[int]] = {(r, i): set() for r in range(len(rules)) for i in range(len(text) + 1)}

    def run(one: Expression, at: int) -> set[int]:
        match one:
            case ("lit", literal):
                return {at + len(literal)} if text.startswith(literal, at) else set()
            case ("set", letters, negated):
                return {at + 1} if at < len(text) and (text[at] in letters) != negated else set()
            case ("ref", number):
                return known[number, at]
            case ("alt", items):
                return set().union(*(run(item, at) for item in items))
            case ("seq", items):
                found = {at}
                for item in items:
                    found = set().union(*(run(item, i) for i in found))
                return found
            case ("rep", item, least, most):
                found, now = ({at} if least == 0 else set()), {at}
                for count in range(1, (most or least + len(text) + 1) + 1):
                    now = set().union(*(run(item, i) for i in now))
                    found |= now if count >= least else set()
                return found
        raise AssertionError(one)

    while True:
        grown = {(r, i): run(rules[r], i) for r, i in known}
        if grown == known:
            return known
        known = grown


def accepts(lark: str, text: str, tokenizer: Any = TOKENIZER, letters: bytes = LETTERS.encode()) -> bool:
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0)
    assert not matcher.is_error(), (matcher.get_error(), lark)
    tokens = [letters.index(byte) for byte in text.encode()]
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


@settings(max_examples=400, deadline=None, derandomize=True)
@given(GRAMMAR, st.lists(st.text(LETTERS, max_size=6), min_size=8, max_size=8))
def test_the_translation_has_the_words_of_the_grammar(rules: list[Expression], texts: list[str]) -> None:
    text = "\n".join(f"{written(('ref', i))} ::= {written(rule)}" for i, rule in enumerate(rules))
    lark = to_lark(text)
    for word in ["", *texts]:
        assert accepts(lark, word) == (len(word) in ends(rules, word)[0, 0]), (word, text, lark)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "json",
            ['{"a": [1, -2.5e3, "x\\n\\u00e9", true, null], "ü": {}}', '{ "k":\n"v" }'],
            ['{"a": 01}', "{a: 1}", '["x]'],
        ),
        ("arithmetic", ["1 +2 = 3\n", "(x+1)*y=12\n"], ["1 +\n", "1 + 2"]),
        ("chess", ["1. e4 e5\n", "1. e4 e5\n2. Nf3 Nc6\n3. O-O dxe4\n"], ["1. e9 e5\n", "e4\n"]),
        ("list", ["- one\n- two\n", "- a-b - c\n"], ["one\n", "- one\n\n"]),
        ("english", ["It is so, isn't it?"], ["Привет"]),
        ("japanese", ["これはペンです。\n", "カタ漢字"], ["abc"]),
    ],
)
def test_grammars_as_llama_cpp_ships_them(name: str, good: list[str], bad: list[str]) -> None:
    lark = to_lark((GRAMMARS / f"{name}.gbnf").read_text())
    for text in good:
        assert accepts(lark, text, BYTES, bytes(range(256))), text
    for text in bad:
        assert not accepts(lark, text, BYTES, bytes(range(256))), text


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ("", "needs a rule 'root'"),
        ('start ::= "a"', "needs a rule 'root'; there are: start"),
        ("root ::= other", "rule 'root' names 'other', which is no rule"),
        ('root ::= "a', "line 1.*not closed"),
        ("root ::= [a", "line 1.*not closed"),
        ('root ::= ("a"', r"expected \)"),
        ('root = "a"', "expected ::="),
        ('root ::= "a"\nroot ::= "b"', "line 2.*already"),
        ('root ::= "\\q"', "is no escape"),
        ('root ::= "\\x4"', "is no escape"),
        ("root ::= [z-a]", "goes upwards"),
        ('root ::= "a"{3,1}', "allows nothing"),
        ('root ::= "a"{,1}', "a repetition is"),
        ("root ::= <think>", "not supported"),
        ("root ::= []", "allows no character"),
        (f'root ::= {"(" * 500}"a"{")" * 500}', "brackets within each other"),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_place(grammar: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_lark(grammar)
