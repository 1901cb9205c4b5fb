"""The answer is SQL that parses."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Self

from decodery.constrain.lib.black_box import BlackBox
from decodery.core.errors import DecoderyError
from decodery.core.part import Model

VERBS = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "MERGE")
QUOTES = ("'", '"', "`", "]", "$$", "*/")
SPARE = 2
"""An error is reported at the last whole token or the one before it where the text is only unfinished; measured."""


@dataclass
class Sql(BlackBox):
    """The answer is SQL that sqlglot parses: queries, INSERT, UPDATE, DELETE, MERGE, CREATE, DROP and ALTER.

    ``dialect``: one of sqlglot's, such as "sqlite", "postgres", "duckdb"; empty: its own superset. ``before``: a text that is
    read before the answer. The parser does not look names up. On the way a text is refused where the first error lies more
    than two tokens before its end, so a wrong turn is noticed two tokens later; whole answers are judged exactly.
    Needs ``pip install sqlglot``. Use ``search=smc``, which asks about few tokens. Raises ``DecoderyError`` without sqlglot,
    and for an unknown dialect.
    """

    dialect: str = ""
    before: str = ""

    def opening(self) -> bytes:
        return self.before.encode()

    def bind(self, model: Model) -> Self:
        try:
            import sqlglot
        except ImportError as error:
            raise DecoderyError("the sql constraint needs sqlglot: pip install 'decodery[sql]'") from error
        try:
            sqlglot.Dialect.get_or_raise(self.dialect)
        except ValueError as error:
            raise DecoderyError(f"sql constraint: {error}") from error
        logging.getLogger("sqlglot").addFilter(_telling)
        self._sqlglot: Any = sqlglot
        return super().bind(model)

    def judge(self, text: bytes) -> bool | None:
        try:
            code = text.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return None
            return None if self.judge(text[: error.start]) is None else False
        first = re.match(r"[\s(]*(\w*)(.?)", code, re.DOTALL)
        verb, more = (first[1].upper(), first[2]) if first else ("", "")
        if not any(verb == one if more else one.startswith(verb) for one in VERBS):
            return None
        return self._parsed(code)

    def _parsed(self, code: str) -> bool | None:
        """True: whole. False: the parser read nearly all of it before it found an error. None: it is wrong."""
        glot, expressions = self._sqlglot, self._sqlglot.exp
        try:
            found = glot.parse(code, read=self.dialect or None, error_level=glot.ErrorLevel.IMMEDIATE)
        except glot.errors.ParseError as error:
            told = error.errors[0] if error.errors else {}
            place = int(told.get("line") or 0), int(told.get("col") or 0)
            after = [one for one in glot.tokenize(code, self.dialect or None) if (one.line, one.col) > place]
            return False if len(after) <= SPARE or not any(place) else None
        except glot.errors.TokenError:
            return False if any(self._reads(code + quote) for quote in QUOTES) else None
        except RecursionError:
            return None
        statements = (expressions.Query, expressions.DML, expressions.DDL, expressions.Drop, expressions.Alter)
        known = [one for one in found if one is not None]
        whole = bool(known) and all(isinstance(one, statements) for one in known)
        return whole and all(one.expressions for each in known for one in each.find_all(expressions.Select))

    def _reads(self, code: str) -> bool:
        """Whether the text is made of whole tokens."""
        try:
            self._sqlglot.tokenize(code, self.dialect or None)
        except self._sqlglot.errors.TokenError:
            return False
        return True


def _telling(record: logging.LogRecord) -> bool:
    """Half a statement is no news: sqlglot warns of each that it cannot read as a whole."""
    return "Falling back to parsing as a 'Command'" not in record.getMessage()
