"""Errors as a ClickHouse server reports them: number, name, text, HTTP status."""

from __future__ import annotations

import re
from typing import Final

from kalshi_fast.errors import KalshiFastError

# Those that the front raises itself, by ClickHouse's names.
CODES: Final = {
    "BAD_ARGUMENTS": 36,
    "NOT_IMPLEMENTED": 48,
    "SYNTAX_ERROR": 62,
    "TIMEOUT_EXCEEDED": 159,
    "READONLY": 164,
    "TOO_MANY_SIMULTANEOUS_QUERIES": 202,
    "ABORTED": 236,
    "TOO_MANY_ROWS_OR_BYTES": 396,
    "SETTING_CONSTRAINT_VIOLATION": 452,
    "QUERY_IS_TOO_LARGE": 476,
    "AUTHENTICATION_FAILED": 516,
}
# As the server answers, see its exceptionCodeToHTTPStatus; all others are 500.
_STATUS: Final = (
    dict.fromkeys((516, 192, 193), 403)
    | dict.fromkeys((27, 36, 38, 41, 42, 43, 44, 53, 62, 63, 69, 70, 72, 89, 457), 400)
    | dict.fromkeys((16, 46, 47, 50, 60, 73, 81, 115), 404)
    | dict.fromkeys((202, 236), 503)
    | {48: 501, 159: 408, 476: 413}
)
_CODE = re.compile(r"Code: (\d+)\. ")


class QueryError(KalshiFastError):
    """A statement was refused or failed; the text is the server's: ``Code: 164. DB::Exception: …``."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 500)


def refusal(name: str, text: str) -> QueryError:
    """An error of the front's own, under ClickHouse's name for it."""
    return QueryError(f"Code: {CODES[name]}. DB::Exception: {text} ({name})", CODES[name])


def engine_error(error: Exception) -> QueryError:
    """What the engine says, without what was put before it on its way."""
    text = str(error).strip()
    found = _CODE.search(text)
    if found is None:
        return QueryError(f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)", 1002)
    return QueryError(text[found.start() :], int(found[1]))
