"""Parquet files by date (UTC, of the receive time), size and age; complete or not there at all.

One reader of the journal for all tables, each with files and a position of its own (``series``): the order
book's in ``orderbook/``, and those of the other channels that have a history beside it. Not here: level
states and markets (they are current, not history), frames that could not be used (``ndjson``).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.channels.rows import SCHEMAS, arrow
from kalshi_fast.errors import SinkError
from kalshi_fast.journal import Cursor
from kalshi_fast.sinks import layout
from kalshi_fast.sinks.series import FileSeries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from kalshi_fast.journal import Entry, Journal, Position
    from kalshi_fast.sinks.ndjson import NdjsonSink, RawSink, RejectSink

TAKE_ROWS: Final = 65_536
IDLE_S: Final = 1.0  # of a table in which nothing happens
# Tables that have files, beside orderbook.
HISTORIES: Final = ("trades", "tickers", "market_lifecycle", "reference_prices")


class ParquetSink:
    """Delivers the journal to files. ``histories``: positions of the tables of HISTORIES that are to have
    files too. Raises ConfigError for a directory it cannot use."""

    name = "Parquet"
    pause_s = 0.0

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        position: Position,
        *,
        max_bytes: int,
        max_secs: int,
        rejects: RejectSink | None = None,
        raw: RawSink | None = None,
        histories: Mapping[str, Position] | None = None,
        row_group_rows: int = layout.ROW_GROUP_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hurry = False  # the journal wants to be rid of what the open files still hold back
        self._journal = journal
        self._lines: list[NdjsonSink] = [sink for sink in (rejects, raw) if sink is not None]

        def series(
            table: str,
            position: Position,
            rows_of: Callable[[Entry], pa.RecordBatch | None],
            schema: pa.Schema,
            idle_s: float,
        ) -> FileSeries:
            return FileSeries(
                directory / table,
                journal,
                position,
                rows_of,
                schema,
                max_bytes=max_bytes,
                max_secs=max_secs,
                row_group_rows=row_group_rows,
                idle_s=idle_s,
                clock=clock,
            )

        self._events = series("orderbook", position, _events, EVENT_SCHEMA, 0.0)
        self._all = [self._events]
        for table, place in (histories or {}).items():
            self._all.append(series(table, place, _rows_of(table), SCHEMAS[table], IDLE_S))
        self._cursor = self._begin()

    def _begin(self) -> Cursor:
        return Cursor(self._journal, min(series.at.seq for series in self._all))

    @property
    def files(self) -> list[Path]:
        """Of the order book, as far as this process has completed them."""
        return self._events.files

    @property
    def rows(self) -> int:
        """Events of the present recorder that were handed to a file."""
        at = self._events.at
        return at.rows if at.recorder == self._journal.recorder.hex else 0

    @property
    def done_seq(self) -> int:
        return min(series.done_seq for series in self._all)

    def step(self) -> bool:
        with self._disk():
            entries = self._cursor.take(TAKE_ROWS)
            for entry in entries:
                for lines in self._lines:
                    lines.write(entry)
                for series in self._all:
                    series.take(entry)
            for series in self._all:
                series.look_after(hurry=self.hurry)
            self.hurry = False
        return bool(entries)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(
                f"Parquet takes no rows: {error.strerror or error} ({self._events.root})"
            ) from error

    def reset(self) -> None:
        """After a failure: what was not completed is read from the journal again."""
        for series in self._all:
            series.restart()
        self._cursor.close()
        self._cursor = self._begin()

    def close(self) -> None:
        """Completes the open files."""
        with self._disk():
            for series in self._all:
                series.close()
        self._cursor.close()
        for lines in self._lines:
            lines.close()


def _events(entry: Entry) -> pa.RecordBatch | None:
    return None if entry.events is None else entry.names.events(entry.events)


def _rows_of(table: str) -> Callable[[Entry], pa.RecordBatch | None]:
    def rows_of(entry: Entry) -> pa.RecordBatch | None:
        rows = getattr(entry.extra.channels, table)
        return arrow(table, rows) if rows else None

    return rows_of
