"""Columns of a foreign file as integers, whatever they are there; what cannot be read is marked.

Whole columns are converted at once; only one that holds something unreadable is read value by value. Not
here: which columns there are (``seedfile``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kalshi_fast.importing.findings import Findings

Ints: TypeAlias = "NDArray[np.int64]"
Mask: TypeAlias = "NDArray[np.bool_]"

# Kalshi opened in 2021; what is dated elsewhere is no time of an event.
FLOOR_NS: Final = int(datetime(2021, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
END_NS: Final = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
_UNIT_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(slots=True)
class Place:
    """Where a batch stands, to say it in examples."""

    name: str
    first: int
    findings: Findings

    def note(self, kind: str, rows: Mask, column: pa.Array | None) -> None:
        places = np.flatnonzero(rows)
        self.findings.count(kind, len(places), (self._example(place, column) for place in places))

    def _example(self, place: np.intp, column: pa.Array | None) -> str:
        told = "" if column is None else f": {strings(column.slice(int(place), 1))[0]!r}"[:80]
        return f"{self.name}, row {self.first + int(place)}{told}"


def ones(n: int) -> Ints:
    return np.ones(n, np.int64)


EXPECTED: Final = {
    **dict.fromkeys(("sid", "seq", "price", "qty"), "whole numbers"),
    **dict.fromkeys(("ts", "ingest_ts"), "timestamps"),
}


def plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def reads(name: str, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return True
    expected = EXPECTED.get(name)
    if expected == "whole numbers":
        is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        return any(found(kind) for found in is_number)
    return expected == "timestamps" and bool(pa.types.is_timestamp(kind))


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def strings(column: pa.Array) -> list[Any]:
    """The values; text that is no UTF-8 with replacement characters."""
    column = _plain(column)
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [
            None if value is None else value.decode("utf-8", "replace")
            for value in column.cast(pa.large_binary()).to_pylist()
        ]
    except (ValueError, OverflowError):  # a timestamp beyond the years of datetime
        values = [None if value is None else str(value) for value in column.cast(pa.int64()).to_pylist()]
    return values


def codes(column: pa.Array, words: pa.Array) -> Ints:
    """Which of the words each value is, -1 for none of them."""
    column = _plain(column)
    if not _is_text(column):
        return -ones(len(column))
    found = pc.index_in(column, value_set=words.cast(column.type)).fill_null(-1)
    codes: Ints = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def numbered(column: pa.Array, number: Any) -> Ints:  # noqa: ANN401
    """``number`` of each value; it is asked once for each different one."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if pa.types.is_null(column.type):
        return ones(len(column)) * int(number(None))
    numbers = np.array([number(value) for value in strings(encoded.dictionary)] + [number(None)], np.int64)
    indices = encoded.indices.cast(pa.int64()).fill_null(len(numbers) - 1)
    found: Ints = numbers[indices.to_numpy(zero_copy_only=False)]
    return found


def integers(column: pa.Array) -> tuple[Ints, Mask]:
    """Whole numbers, and where they are some; a fraction or text that is no number is none."""
    column = _plain(column)
    if not _is_text(column):
        try:
            whole = column.cast(pa.int64())
        except pa.ArrowException:
            pass  # one of them is no whole number
        else:
            good: Mask = whole.is_valid().to_numpy(zero_copy_only=False)
            filled: Ints = whole.fill_null(0).to_numpy(zero_copy_only=False)
            return filled, good
    read = [_integer(value) for value in strings(column)]
    values = np.array([0 if value is None else value for value in read], np.int64)
    return values, np.array([value is not None for value in read], np.bool_)


def _integer(value: object) -> int | None:
    if isinstance(value, str):
        if re.fullmatch(r"[+-]?[0-9]{1,19}(\.0{1,9})?", value, re.ASCII) is None:
            return None
        value = int(value.partition(".")[0])
    try:
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError, ArithmeticError):  # null, NaN, infinity
        return None
    return whole if whole == value and -(1 << 63) <= whole < 1 << 63 else None


def moments(column: pa.Array, place: Place) -> tuple[Ints, Mask]:
    """Nanoseconds since 1970, and where they are times that an event can have."""
    column = _plain(column)
    n = len(column)
    if pa.types.is_timestamp(column.type):
        raw = column.cast(pa.int64())
        unit = _UNIT_NS[column.type.unit]
        values = raw.fill_null(0).to_numpy(zero_copy_only=False)
        good = raw.is_valid().to_numpy(zero_copy_only=False)
        good = good & (values >= FLOOR_NS // unit) & (values < END_NS // unit)
        if column.type.tz is None:
            place.note("no_zone", good, None)
        return np.where(good, values, 0) * unit, good
    if not _is_text(column):  # a column of nothing but nulls
        return 0 * ones(n), ones(n) < 0
    place.note("text_timestamps", column.is_valid().to_numpy(zero_copy_only=False), column)
    for zone in ("UTC", None):
        try:
            read = column.cast(pa.timestamp("us", zone)).cast(pa.int64())
        except pa.ArrowException:
            continue  # one of them is no time, or has a zone and should not, or the reverse
        us = read.fill_null(0).to_numpy(zero_copy_only=False)
        good = (us >= FLOOR_NS // 1000) & (us < END_NS // 1000)
        ns = np.where(good, us, 0) * 1000
        if zone is None:
            place.note("no_zone", good, column)
        return ns, good
    found = [_moment(text) for text in strings(column)]
    ns = np.array([at for at, _ in found], np.int64)
    good = (ns >= FLOOR_NS) & (ns < END_NS)
    place.note("no_zone", good & np.array([naive for _, naive in found], np.bool_), column)
    return ns, good


def _moment(text: str | None) -> tuple[int, bool]:
    """Nanoseconds (0: no time), and whether it had no zone."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return 0, False
    naive = moment.tzinfo is None
    if naive:
        moment = moment.replace(tzinfo=UTC)
    try:
        whole = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except OverflowError:  # the first and the last day of datetime
        return 0, naive
    ns = (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + whole.microseconds * 1000
    return (ns if FLOOR_NS <= ns < END_NS else 0), naive
