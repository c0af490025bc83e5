"""Rows of ``reference_prices``: exact decimals made of the words of the reference channels.

The exchange writes eight digits behind the point, CF Benchmarks as many as an index needs (two for bitcoin);
DIGITS leaves room for coins that cost a fraction of a cent. A row needs an index and one number at least;
whatever else is missing or cannot be read is None, and what cannot be read is told by its name. Not here: the
messages (``reference``), who writes rows (``reference_stream``).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
import pyarrow as pa

from kalshi_fast.channels.reference import ABSENT, Cf5HzBody, CfBody
from kalshi_fast.errors import FrameError

if TYPE_CHECKING:
    from kalshi_fast.channels.reference import PythBody, Value

DIGITS: Final = 18  # behind the point
_MOST: Final = Decimal(10 ** (38 - DIGITS))
_MOST_TS_MS: Final = 9_223_372_036_854  # what 64-bit nanoseconds hold
_MOST_TICKS: Final = 2**32 - 1
MOST_NAME_CHARS: Final = 128
_DATA_KEYS: Final = frozenset({"type", "time", "id", "value"})
_AVERAGE: Final = "avg_60s_data"
_FINAL: Final = "last_60s_windowed_average_15min"
_NOTHING: Final = (b"", b"null", b'""')
_NUMBER: Final = re.compile(rb"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_text = msgspec.json.Decoder(str)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_TEXT = pa.dictionary(pa.int32(), pa.string())
_DECIMAL = pa.decimal128(38, DIGITS)
REFERENCE_SCHEMA: Final = pa.schema(
    [
        ("conn_id", pa.uint64()),
        ("sid", pa.uint32()),
        ("seq", pa.uint64()),
        ("channel", _TEXT),
        ("index_id", _TEXT),
        ("value", _DECIMAL),
        ("avg_60s", _DECIMAL),
        ("avg_60s_ticks", pa.uint32()),
        ("avg_final_60s", _DECIMAL),
        ("avg_final_60s_ticks", pa.uint32()),
        ("source_ts", pa.timestamp("ms", "UTC")),
        ("received_ts", pa.timestamp("ms", "UTC")),
        ("ts", pa.timestamp("us", "UTC")),
        ("ingest_ts", pa.timestamp("ns", "UTC")),
    ]
)
# Of these columns none is ever empty.
REFERENCE_KEYS: Final = ("conn_id", "sid", "seq", "channel", "index_id", "ts", "ingest_ts")


class ReferenceRow(msgspec.Struct, frozen=True, array_like=True):
    """A value of an index or an underlying. ``avg_60s``: over the 60 s before it, of so many ticks;
    ``avg_final_60s``: since the last minute before a quarter of an hour began, only within that minute.

    ``source_ts_ms``: when the source published it; ``received_ts_ms``: when the exchange had it; ``ts_us``:
    the first of them that is known, else the receive time. None: not told.
    """

    table: ClassVar[str] = "reference_prices"
    conn_id: int
    sid: int
    seq: int
    channel: str
    index_id: str
    value: Decimal | None
    avg_60s: Decimal | None
    avg_60s_ticks: int | None
    avg_final_60s: Decimal | None
    avg_final_60s_ticks: int | None
    source_ts_ms: int | None
    received_ts_ms: int | None
    ts_us: int
    ingest_ns: int


class _Reading:
    """Fields of one message; ``lost``: those that are there and cannot be read."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.odd: list[str] = []  # keys of ``data`` that are not known

    def decimal(self, raw: msgspec.Raw, field: str) -> Decimal | None:
        """Exact, or nothing: not rounded, not cut. A number or text that is one."""
        text = bytes(raw)
        if text in _NOTHING:
            return None
        if text[:1] == b'"':
            text = text[1:-1]
        if _NUMBER.fullmatch(text):
            value = trimmed(Decimal(text.decode()))
            if value is not None:
                return value
        self.lost.append(field)
        return None

    def integer(self, raw: msgspec.Raw, field: str, most: int = _MOST_TS_MS) -> int | None:
        """Also one that is written as text, or as ``2.0``."""
        value = self.decimal(raw, field)
        if value is None:
            return None
        if value != value.to_integral_value() or not 0 <= value <= most:
            self.lost.append(field)
            return None
        return int(value)

    def members(self, raw: msgspec.Raw, field: str) -> dict[str, msgspec.Raw]:
        """Of an object, or of text that is the JSON of one."""
        text = bytes(raw)
        if text in _NOTHING:
            return {}
        try:
            if text[:1] == b'"':
                text = _text.decode(text).encode()
            return _members.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            self.lost.append(field)
            return {}

    def source(self, raw: msgspec.Raw) -> tuple[Decimal | None, int | None]:
        """Value and time in the source's own frame, which comes as text."""
        found = self.members(raw, "data")
        self.odd += [f"data.{key}" for key in found if key not in _DATA_KEYS]
        return (
            self.decimal(found.get("value", ABSENT), "data.value"),
            self.integer(found.get("time", ABSENT), "data.time"),
        )


def trimmed(value: Decimal) -> Decimal | None:
    """The same number without zeros at its end; None when the column cannot hold it."""
    if not value.is_finite() or value.copy_abs() >= _MOST:
        return None
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - of a finite one it is
    spare = 0
    while spare < len(digits) - 1 and digits[-1 - spare] == 0:
        spare += 1
    if not any(digits):
        return Decimal(0)
    if exponent + spare < -DIGITS:
        return None
    if exponent >= 0:
        return Decimal(int(value))
    spare = min(spare, -exponent)
    return Decimal((value.as_tuple().sign, digits[: len(digits) - spare], exponent + spare))


def reference_row(message: Value, conn_id: int, ingest_ns: int) -> tuple[ReferenceRow, list[str], list[str]]:
    """The row, the fields that could not be read, and keys of ``data`` that are not known.

    Raises FrameError for a message without any number, or of no index.
    """
    body, read = message.msg, _Reading()
    averages: list[tuple[Decimal | None, int | None]] = []
    if isinstance(body, CfBody):
        name, essential = body.index_id, "data"
        value, source_ms = read.source(body.data)
        for field in (_AVERAGE, _FINAL):
            found = read.members(getattr(body, field), field)
            mean = read.decimal(found.get("value", ABSENT), f"{field}.value")
            size = found.get("window_size", ABSENT)
            averages.append((mean, read.integer(size, f"{field}.window_size", _MOST_TICKS)))
            if source_ms is None:  # each window ends with the value's own time
                end = found.get("window_end_ts_exclusive", ABSENT)
                source_ms = read.integer(end, f"{field}.window_end_ts_exclusive")
    else:
        name, essential = _name(body), "value_usd"
        value = read.decimal(body.value_usd, "value_usd")
        source_ms = read.integer(body.source_ts_ms, "source_ts_ms")
        if isinstance(body, Cf5HzBody):
            in_data, at_ms = read.source(body.data)
            value = in_data if value is None else value
            source_ms = at_ms if source_ms is None else source_ms
    if not 0 < len(name) <= MOST_NAME_CHARS:
        raise FrameError("index_id", name, f"1 to {MOST_NAME_CHARS} characters")
    (avg_60s, ticks_60s), (avg_final, ticks_final) = averages or [(None, None)] * 2
    if value is None and avg_60s is None and avg_final is None:
        raise FrameError(essential, bytes(getattr(body, essential)), "a value")
    received_ms = read.integer(body.received_at, "received_at")
    told_ms = received_ms if source_ms is None else source_ms
    row = ReferenceRow(
        conn_id,
        message.sid,
        message.seq,
        str(message.__struct_config__.tag),
        name,
        value,
        avg_60s,
        ticks_60s,
        avg_final,
        ticks_final,
        source_ms,
        received_ms,
        ingest_ns // 1000 if told_ms is None else told_ms * 1000,
        ingest_ns,
    )
    return row, read.lost, read.odd


def _name(body: Cf5HzBody | PythBody) -> str:
    return body.index_id if isinstance(body, Cf5HzBody) else body.underlying_ticker
