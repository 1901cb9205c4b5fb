"""Constraints that only answer yes or no: a function of the user's, valid Python so far, SQL that parses."""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.constrain.check import Check
from decodery.constrain.lib.black_box import Written
from decodery.constrain.python import Python, begins
from decodery.constrain.sql import Sql
from decodery.core.errors import DecoderyError, UnknownPart
from decodery.model.toy import ToyModel
from decodery.run.spec import part

TOY = ToyModel(eos=frozenset({2}))


def short(text: bytes) -> bool:
    """For ``python:`` specs."""
    return len(text) < 3


def test_a_function_is_asked_about_the_text_so_far() -> None:
    check = Check(lambda text: not text.endswith(b"bb")).bind(TOY)
    state = check.start((0, 1))
    assert state == Written(b"", True)
    state = check.advance(state, 1)
    assert state is not None
    assert state.text == b"b"
    assert check.advance(state, 1) is None
    assert check.mask(state).tolist() == [True, False, False]  # end-of-sequence is not the constraint's affair


def test_a_function_of_two_arguments_says_where_an_answer_may_end() -> None:
    check = Check(lambda text, ended: not ended or len(text) == 2, before="a").bind(TOY)
    assert not check.may_end(check.start(()))
    after = check.advance(check.start(()), 1)
    assert after == Written(b"ab", True)


def test_a_function_is_named_by_its_module() -> None:
    made = part("constrain", "check:python:tests.units.test_black_box:short")
    check = made.bind(TOY)  # type: ignore[arg-type]
    assert check.judge(b"ab") is True  # type: ignore[attr-defined]
    assert check.judge(b"abc") is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("python:nowhere.at:all", "cannot be imported"),
        ("python:os:sep", "no function but str"),
        ("os:getcwd", "python:module:function"),
        ("getcwd", "python:module:function"),
    ],
)
def test_what_is_no_function_is_refused(name: str, said: str) -> None:
    with pytest.raises(UnknownPart, match=said):
        Check(name).bind(TOY)


def test_a_check_that_raises_is_named() -> None:
    with pytest.raises(DecoderyError, match=r"raised ZeroDivisionError on b'': .*True or False"):
        Check(lambda text: 1 / len(text)).bind(TOY).start(())


def test_a_check_of_text_never_sees_half_a_character() -> None:
    seen: list[str] = []

    def look(text: str) -> bool:
        seen.append(text)
        return True

    check = Check(look, text=True).bind(TOY)
    assert check.judge("né".encode()) is True
    assert check.judge("né".encode()[:-1]) is False  # an answer cannot end there
    assert check.judge(b"n\xff\xff") is None
    assert seen == ["né", "n"]


@pytest.mark.parametrize(
    ("code", "judged"),
    [
        ("", True),
        ("x = 1", True),
        ("x y", None),
        ("x = )", None),
        ("x = (", False),
        ("if x:\n  ", False),
        ("x\n  y", None),
        ("x = 'a", False),
        ("x 'a", None),
        ("x = 'a\n", None),
        ("x = '''a\n", False),
        ("f'{a", False),
        ("b'a' 'b", False),  # mixed strings are noticed once more follows
        ("b'a' 'b' + ", None),
        ("rb", True),
        ("wit", True),
        ("else", False),  # may become a name such as elsewhere
        ("else ", None),
        ("import os a", False),
        ("import os a ", None),
        ("1 +* 2", None),
        ("x !", False),
        ("x ! ", None),
        ("x.", False),
        ("x = 1.", True),
        ("x = 0x", False),
        ("x = 1 + # more", None),
        ("x = (1 + # more", False),
        ("x = 1 + \\", False),
        ("x = 1 + \\ ", None),
        ("try:\n x\nfinal", False),
        ("try:\n x\ny", None),
        ("def f():\n  return 1\n  # more", True),
        ("def f(a, *", False),
        ("match x:\n case 1:\n  pass", True),
        ("a?", None),
        ("\x00", None),
        ("(" * 1000, None),
    ],
)
def test_python_so_far(code: str, judged: bool | None) -> None:
    assert Python().judge(code.encode()) is judged


def test_half_a_letter_is_a_beginning() -> None:
    assert Python().judge("é".encode()[:1]) is False
    assert Python().judge("x = 'é".encode()[:-1]) is False
    assert Python().judge("x y é".encode()[:-1]) is None
    assert Python().judge(b"\xff") is None


@pytest.mark.parametrize("before", ["", "def f(x):\n    "])
def test_python_behind_other_code(before: str) -> None:
    python = Python(before=before).bind(ToyModel())
    assert (python.judge(python.opening() + b"return x") is not None) == bool(before) or not before


def sources() -> list[str]:
    """Beginnings of modules of the standard library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    found = []
    for file in random.Random(3).sample(files, 40):
        text = file.read_text(encoding="utf8", errors="ignore")[:1500]
        try:
            ast.parse(text := text[: text.rfind("\n\n") + 1])
        except SyntaxError:
            continue
        found.append(text)
    return found


def test_no_beginning_of_a_program_is_refused() -> None:
    """Or weights would be wrong: the check may allow too much on the way, never too little."""
    warnings.simplefilter("ignore")
    python, tried = Python(), 0
    for text in sources():
        raw = text.encode()
        for cut in random.Random(text).sample(range(len(raw) + 1), min(40, len(raw))):
            assert python.judge(raw[:cut]) is not None, raw[max(cut - 60, 0) : cut]
            tried += 1
    assert tried > 500


@settings(max_examples=300, deadline=None)
@given(st.text("ab1 \n:()[]'\"#=+\\,.{}!if", max_size=12))
def test_the_check_is_right_about_whole_programs_and_lets_all_their_beginnings_pass(code: str) -> None:
    python = Python()
    judged = [python.judge(code[:cut].encode()) for cut in range(len(code) + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except SyntaxError:
            assert judged[-1] is not True
        else:
            assert judged[-1] is True
            assert None not in judged
            assert begins(code)


STATEMENTS = (
    "SELECT a, b FROM t WHERE x = 1 AND y IN (1, 2) ORDER BY a DESC LIMIT 10",
    "SELECT CASE WHEN a > 1 THEN 'it''s' ELSE \"y\" END FROM t -- note\nWHERE b IS NOT NULL;",
    "WITH c AS (SELECT 1 AS a) SELECT * FROM c LEFT JOIN d ON c.a = d.a",
    "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')",
    "UPDATE t SET a = a + 1 WHERE b BETWEEN 1 AND 2",
    "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.id = t.id)",
    "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)",
    "ALTER TABLE t ADD COLUMN x INT",
    "SELECT count(*) AS n FROM a GROUP BY b HAVING count(*) > 3 UNION ALL SELECT max(c) FROM d",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = 1",
)


@pytest.mark.parametrize("dialect", ["", "sqlite", "postgres"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_no_beginning_of_a_statement_is_refused(statement: str, dialect: str) -> None:
    pytest.importorskip("sqlglot", reason="the sql constraint needs sqlglot")
    sql = Sql(dialect=dialect).bind(TOY)
    assert sql.judge(statement.encode()) is True
    assert [cut for cut in range(len(statement)) if sql.judge(statement[:cut].encode()) is None] == []


@pytest.mark.parametrize("text", ["hello", "SELECTED", "SELECT a b c d FROM t", "1 + 1"])
def test_what_is_no_sql_is_refused(text: str) -> None:
    pytest.importorskip("sqlglot", reason="the sql constraint needs sqlglot")
    assert Sql().bind(TOY).judge(text.encode()) is None


def test_an_unknown_dialect_is_refused() -> None:
    pytest.importorskip("sqlglot", reason="the sql constraint needs sqlglot")
    with pytest.raises(DecoderyError, match="Unknown dialect 'sqlightly'"):
        Sql(dialect="sqlightly").bind(TOY)
