"""Recordings on disk become events: the seed's Parquet (whole cents, no gaps) and that of our sink.

Either way the result is a list of segments, one per recorded connection, of snapshots and deltas in their
order. In the seed's files rows of one snapshot share sid, seq and ts, and a new connection shows in a
``seq`` that falls. Ours may be of several connections at once; there the rows themselves say when a book is
known: a ``clear`` row opens a snapshot; deltas before it, after a ``gap``, or of another connection than its
own are left out. It is one segment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.compact.swap import event_files
from kalshi_fast.errors import SimulatorError, excerpt, reason
from kalshi_fast.simulator.frames import SIDES, Levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SEED_COLUMNS: Final = ("type", "sid", "seq", "market_id", "market_ticker", "side", "price", "qty", "ts")
_OUR_COLUMNS: Final = (
    *("type", "conn_id", "sid", "seq", "market_id", "market_ticker", "side", "price_e4", "qty_e2"),
    *("ts", "ingest_ts"),
)
# These go into frames as they are.
_TICKER: Final = re.compile(r"[A-Z0-9.-]{1,128}")
_MARKET_ID: Final = re.compile(r"[0-9A-Za-z-]{0,64}")
_END_US: Final = 253_402_300_800 * 1_000_000  # of the year 9999: what datetime can say
_TS: Final = re.compile(r"[0-9TZtz:.+ -]{0,40}")


@dataclass(slots=True)
class Snapshot:
    ticker: str
    at_s: float  # by the recorder's or the exchange's clock
    sides: tuple[Levels, Levels]


@dataclass(slots=True)
class Delta:
    ticker: str
    at_s: float
    side: int
    price_e4: int
    delta_e2: int
    ts: str


Event: TypeAlias = Snapshot | Delta
_Row: TypeAlias = tuple[Any, ...]


class Recording:
    """What the files of a directory hold. Raises SimulatorError for what is no recording."""

    def __init__(self, directory: Path) -> None:
        self.market_ids: dict[str, str] = {}  # of every market, in order of appearance
        self.segments: list[list[Event]] = []
        # Which segment is open, and what of it: for rows to come.
        self._last_seq: int | None = None
        self._open: tuple[Any, ...] | None = None
        self._known: dict[str, int] = {}  # of ours: the connection whose book a market has
        # Not the files themselves: a compaction that was interrupted may have left rows in two of them.
        parents = {path.parent for path in directory.rglob("*.parquet")} if directory.is_dir() else set()
        files = sorted(file for parent in parents for file in event_files(parent))
        if not files:
            raise SimulatorError(f"--recording: no Parquet files in {directory}")
        for file in files:
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            # Through an open file: a path with date=… in it would add a column.
            table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError) as error:
            raise SimulatorError(
                f"--recording: {file} is no readable Parquet file: {reason(error)}"
            ) from error
        ours = "price_e4" in table.column_names
        columns = _OUR_COLUMNS if ours else _SEED_COLUMNS
        missing = [name for name in columns if table.column_names.count(name) != 1]
        if missing:
            raise SimulatorError(
                f"--recording: {file} is no recording: it has no column {', '.join(missing)} (or several)"
            )
        check, take = (_check_ours, self._take_ours) if ours else (_check_seeds, self._take_seeds)
        if ours and _is_good(table):
            for row in _rows(table, columns, file):
                take(row)
            return
        for number, row in enumerate(_rows(table, columns, file)):
            wrong = check(row)
            if wrong is not None:
                value = excerpt(row[columns.index(wrong)])
                raise SimulatorError(f"--recording: {file}, row {number}: {wrong} cannot be {value}")
            take(row)

    def _market(self, ticker: str, market_id: str | None) -> None:
        self.market_ids[ticker] = self.market_ids.get(ticker) or market_id or ""

    def _new_segment(self) -> None:
        self.segments.append([])
        self._open = None

    def _take_seeds(self, row: _Row) -> None:
        kind, sid, seq, market_id, ticker, side, price, qty, ts = row
        self._market(ticker, market_id)
        if self._last_seq is None or seq < self._last_seq:
            self._new_segment()
        self._last_seq = seq
        events = self.segments[-1]
        price_e4, qty_e2, at_s = price * 100, qty * 100, _moment_s(ts)
        if kind == "delta":
            self._open = None
            told = ts.replace("+00:00", "Z")
            events.append(Delta(ticker, at_s, SIDES.index(side), price_e4, qty_e2, told))
            return
        key = (ticker, sid, seq, ts)
        if key != self._open:
            self._open = key
            events.append(Snapshot(ticker, at_s, ({}, {})))
        self._level(events[-1], side, price_e4, qty_e2)

    def _take_ours(self, row: _Row) -> None:
        kind, conn_id, _, _, market_id, ticker, side, price_e4, qty_e2, ts_us, ingest_ns = row
        self._market(ticker, market_id)
        if not self.segments:
            self._new_segment()
        events, at_s = self.segments[-1], ingest_ns / 1e9
        if kind == "gap":
            self._known.pop(ticker, None)
            self._open = None
        elif kind == "clear":
            self._known[ticker] = conn_id
            self._open = (ticker,)
            events.append(Snapshot(ticker, at_s, ({}, {})))
        elif kind == "snapshot" and self._open == (ticker,):
            self._level(events[-1], side, price_e4, qty_e2)
        elif kind == "delta" and self._known.get(ticker) == conn_id:
            self._open = None
            events.append(Delta(ticker, at_s, SIDES.index(side), price_e4, qty_e2, _rfc3339(ts_us)))

    @staticmethod
    def _level(snapshot: Event, side: str, price_e4: int, qty_e2: int) -> None:
        assert isinstance(snapshot, Snapshot)  # noqa: S101 - opened before its levels
        if qty_e2:
            snapshot.sides[SIDES.index(side)][price_e4] = qty_e2


def _rows(table: pa.Table, columns: tuple[str, ...], file: Path) -> Iterator[_Row]:
    """Rows as tuples; timestamps as integers, codes as strings."""
    arrays = []
    for name in columns:
        column = table.column(name)
        try:
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.timestamp("us" if name == "ts" else "ns", "UTC")).cast(pa.int64())
            arrays.append(column.to_pylist())
        except (pa.ArrowException, ValueError) as error:
            raise SimulatorError(
                f"--recording: {file} holds what cannot be read: {name}: {reason(error)}"
            ) from error
    return zip(*arrays, strict=True)


def _is_good(table: pa.Table) -> bool:
    """Would every row of ours pass ``_check_ours``? Told by whole columns, in much less time, and only
    where they have the types that we write."""
    if any(table.schema.field(name).type != EVENT_SCHEMA.field(name).type for name in _OUR_COLUMNS):
        return False
    if any(table.column(name).null_count for name in _OUR_COLUMNS):
        return False

    def texts(name: str) -> list[str]:
        column = table.column(name)
        return [text for chunk in column.chunks for text in chunk.dictionary.to_pylist()]

    sizes = pc.if_else(pc.equal(table.column("type").cast(pa.string()), "delta"), 0, table.column("qty_e2"))
    moments = table.column("ts").cast(pa.int64())
    return (
        all(kind in ("snapshot", "delta", "clear", "gap") for kind in texts("type"))
        and all(side in SIDES for side in texts("side"))
        and all(_fits(_TICKER, ticker) for ticker in texts("market_ticker"))
        and all(_fits(_MARKET_ID, market_id) for market_id in texts("market_id"))
        and table.num_rows > 0
        and pc.max(table.column("price_e4")).as_py() <= 10_000
        and pc.min(sizes).as_py() >= 0
        and pc.min(moments).as_py() >= 0
        and pc.max(moments).as_py() < _END_US
    )


def _check_seeds(row: _Row) -> str | None:
    """The name of a column whose value cannot be."""
    kind, _, seq, market_id, ticker, side, price, qty, ts = row
    return _first_wrong(
        ("type", lambda: kind in ("snapshot", "delta")),
        ("side", lambda: side in SIDES),
        ("price", lambda: isinstance(price, int) and 0 <= price <= 100),
        ("qty", lambda: isinstance(qty, int) and (kind == "delta" or qty >= 0)),
        ("seq", lambda: isinstance(seq, int)),
        ("market_ticker", lambda: _fits(_TICKER, ticker)),
        ("market_id", lambda: market_id is None or _fits(_MARKET_ID, market_id)),
        ("ts", lambda: _fits(_TS, ts)),
    )


def _check_ours(row: _Row) -> str | None:
    kind, conn_id, _, _, market_id, ticker, side, price_e4, qty_e2, ts_us, ingest_ns = row
    has_level = kind in ("snapshot", "delta")
    return _first_wrong(
        ("type", lambda: kind in ("snapshot", "delta", "clear", "gap")),
        ("conn_id", lambda: isinstance(conn_id, int)),
        ("market_ticker", lambda: _fits(_TICKER, ticker)),
        ("market_id", lambda: market_id is None or _fits(_MARKET_ID, market_id)),
        ("side", lambda: side in SIDES or not has_level),
        ("price_e4", lambda: not has_level or (isinstance(price_e4, int) and 0 <= price_e4 <= 10_000)),
        ("qty_e2", lambda: not has_level or (isinstance(qty_e2, int) and (kind == "delta" or qty_e2 >= 0))),
        ("ts", lambda: isinstance(ts_us, int) and 0 <= ts_us < _END_US),
        ("ingest_ts", lambda: isinstance(ingest_ns, int)),
    )


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _first_wrong(*checks: tuple[str, Callable[[], bool]]) -> str | None:
    return next((name for name, good in checks if not good()), None)


def _moment_s(ts: str) -> float:
    """Seconds since 1970; 0 for what is no time (it is played all the same)."""
    try:
        moment = datetime.fromisoformat(ts)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _rfc3339(unix_us: int) -> str:
    second, us = divmod(unix_us, 1_000_000)
    return f"{_second_text(second)}.{us:06d}Z"


@lru_cache(1024)
def _second_text(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
