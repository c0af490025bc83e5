"""Moments as a caller may give them, as nanoseconds since 1970; and lengths of time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, TypeAlias

import msgspec

from kalshi_fast.errors import FieldError

Moment: TypeAlias = datetime | date | str | int
Duration: TypeAlias = timedelta | str | int
# A number in somebody's file that has to fit into a column: a receive time, a connection's.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

DAY_NS: Final = 86_400_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_NS: Final = {
    "ns": 1,
    "us": 1000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": DAY_NS,
}
_DURATION: Final = re.compile(r"([0-9]+)(ns|us|ms|s|min|h|d)")
_NANOSECONDS: Final = re.compile(r"(.*[0-9][:T ][0-9:]*)\.([0-9]{7,9})(.*)")


def moment_ns(field: str, moment: Moment) -> int:
    """``moment``: an aware datetime, a date (its midnight, UTC), ISO text, or ns. Raises FieldError.

    A datetime or a text without a zone is UTC. Text may have nine digits behind the second.
    """
    if isinstance(moment, bool) or not isinstance(moment, int | str | date):
        raise FieldError(field, moment, "a datetime, ISO text or nanoseconds since 1970")
    if isinstance(moment, int):
        return moment
    more_ns = 0
    if isinstance(moment, str):
        if re.fullmatch(r"-?[0-9]{12,19}", moment):
            return int(moment)
        text = moment
        if found := _NANOSECONDS.fullmatch(moment):
            fraction = found[2].ljust(9, "0")
            text, more_ns = f"{found[1]}.{fraction[:6]}{found[3]}", int(fraction[6:])
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise FieldError(field, moment, "a time such as 2026-01-31T12:00:00Z") from None
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000 + more_ns


def duration_ns(field: str, duration: Duration) -> int:
    """``duration``: a timedelta, ns, or text such as ``100ms``, ``1s``, ``5min``. Raises FieldError."""
    found: int | None = None
    if isinstance(duration, timedelta):
        found = ((duration.days * 86_400 + duration.seconds) * 1_000_000 + duration.microseconds) * 1000
    elif isinstance(duration, int) and not isinstance(duration, bool):
        found = duration
    elif isinstance(duration, str) and (match := _DURATION.fullmatch(duration)):
        found = int(match[1]) * _UNITS_NS[match[2]]
    if found is None or found <= 0:
        raise FieldError(field, duration, "a length of time above 0 such as 100ms, 1s or 5min")
    return found


def iso(ns: int) -> str:
    """The moment as text, to the nanosecond."""
    second, fraction = divmod(ns, 1_000_000_000)
    return f"{_EPOCH + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
