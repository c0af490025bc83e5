"""Recordings of the seed's format (Parquet, integer cents) played as frames of either wire form.

Rows of one snapshot (same sid, seq and ts) become one snapshot frame, every delta row one delta frame with
its own time. Where ``seq`` falls, a new connection was recorded. A market with deltas and no snapshot in
such a stretch gets one at its start that the recording does not have: per level the smallest size with
which no delta takes it below zero. Deltas are never invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.frames import SIDES, Form, Levels, TrueBook, delta_body, snapshot_body
from kalshi_fast.simulator.source import DELTA, SNAPSHOT, Change

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("type", "sid", "seq", "market_id", "market_ticker", "side", "price", "qty", "ts")


@dataclass(slots=True)
class _Snapshot:
    ticker: str
    sides: tuple[Levels, Levels]


@dataclass(slots=True)
class _Delta:
    ticker: str
    side: int
    price_e4: int
    delta_e2: int
    ts: str


class RecordedMarkets:
    """A :class:`Source` that ends with the recording. Raises SimulatorError for what is no recording."""

    def __init__(self, directory: Path, form: Form) -> None:
        self.form = form
        self.books: dict[str, TrueBook] = {}
        rows = _read(directory)
        for row in rows:
            ticker, market_id = row["market_ticker"], row["market_id"] or ""
            book = self.books.setdefault(ticker, TrueBook(ticker, market_id))
            book.market_id = book.market_id or market_id
        segments = [_events(segment) for segment in _segments(rows)]
        self._events: list[_Snapshot | _Delta] = []
        for number, events in enumerate(segments):
            for ticker, sides in _missing_snapshots(events).items():
                if number == 0:
                    self.books[ticker].replace(sides)  # what a subscriber gets at first
                else:
                    self._events.append(_Snapshot(ticker, sides))
            self._events += events
        self._at = 0

    def __len__(self) -> int:
        """How many frames the play has, the snapshots on subscribing not counted."""
        return len(self._events)

    def step(self, now_ns: int) -> Change | None:
        if self._at == len(self._events):
            return None
        event = self._events[self._at]
        self._at += 1
        book = self.books[event.ticker]
        if isinstance(event, _Snapshot):
            book.replace((dict(event.sides[0]), dict(event.sides[1])))
            return Change(event.ticker, SNAPSHOT, snapshot_body(book, self.form))
        book.change(event.side, event.price_e4, event.delta_e2)
        times = b',"ts":"%b"' % event.ts.encode()
        body = delta_body(book, event.side, event.price_e4, event.delta_e2, times, self.form)
        return Change(event.ticker, DELTA, body)


def _read(directory: Path) -> list[dict[str, Any]]:
    files = sorted(directory.rglob("*.parquet")) if directory.is_dir() else []
    if not files:
        raise SimulatorError(f"--recording: no Parquet files in {directory}")
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            # Through an open file: a path with date=… in it would add a column.
            table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError) as error:
            raise SimulatorError(f"--recording: {file} is no readable Parquet file: {error}") from error
        missing = [name for name in _COLUMNS if name not in table.column_names]
        if missing:
            raise SimulatorError(
                f"--recording: {file} is no recording: it has no column {', '.join(missing)}"
            )
        for number, row in enumerate(table.select(_COLUMNS).to_pylist()):
            _check(row, file, number)
            rows.append(row)
    return rows


def _check(row: dict[str, Any], file: Path, number: int) -> None:
    for name, good in (
        ("type", row["type"] in ("snapshot", "delta")),
        ("side", row["side"] in SIDES),
        ("price", isinstance(row["price"], int) and 0 <= row["price"] <= 100),
        ("qty", isinstance(row["qty"], int) and (row["type"] == "delta" or row["qty"] >= 0)),
        ("seq", isinstance(row["seq"], int)),
        ("market_ticker", bool(row["market_ticker"])),
        ("ts", isinstance(row["ts"], str)),
    ):
        if not good:
            raise SimulatorError(f"--recording: {file}, row {number}: {name} cannot be {row[name]!r}")


def _segments(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """One list of rows for each recorded connection."""
    found: list[list[dict[str, Any]]] = []
    last_seq = None
    for row in rows:
        if last_seq is None or row["seq"] < last_seq:
            found.append([])
        last_seq = row["seq"]
        found[-1].append(row)
    return found


def _events(rows: list[dict[str, Any]]) -> list[_Snapshot | _Delta]:
    events: list[_Snapshot | _Delta] = []
    open_key: tuple[Any, ...] | None = None
    for row in rows:
        price, qty = row["price"] * 100, row["qty"] * 100
        if row["type"] == "delta":
            open_key = None
            ts = row["ts"].replace("+00:00", "Z")
            events.append(_Delta(row["market_ticker"], SIDES.index(row["side"]), price, qty, ts))
            continue
        key = (row["market_ticker"], row["sid"], row["seq"], row["ts"])
        if key != open_key:
            open_key = key
            events.append(_Snapshot(row["market_ticker"], ({}, {})))
        snapshot = events[-1]
        assert isinstance(snapshot, _Snapshot)  # noqa: S101 - opened above
        snapshot.sides[SIDES.index(row["side"])][price] = qty
    return events


def _missing_snapshots(events: list[_Snapshot | _Delta]) -> dict[str, tuple[Levels, Levels]]:
    """For each market whose first event is a delta: the smallest book that bears all of them."""
    running: dict[str, tuple[Levels, Levels]] = {}
    needed: dict[str, tuple[Levels, Levels]] = {}
    settled: set[str] = set()
    for event in events:
        if isinstance(event, _Snapshot):
            settled.add(event.ticker)
        elif event.ticker not in settled:
            now = running.setdefault(event.ticker, ({}, {}))[event.side]
            least = needed.setdefault(event.ticker, ({}, {}))[event.side]
            now[event.price_e4] = now.get(event.price_e4, 0) + event.delta_e2
            if -now[event.price_e4] > least.get(event.price_e4, 0):
                least[event.price_e4] = -now[event.price_e4]
    return needed
