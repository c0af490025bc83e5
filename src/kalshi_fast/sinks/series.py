"""The Parquet files of one table, one after the other:
``DIR/TABLE/date=YYYY-MM-DD/part-HHmmss_microseconds.parquet``.

A file appears under its name only when it is complete; its metadata tells which stretch of which journal it
holds, so that after a crash nothing is written twice. Until a file is complete the journal keeps its rows.
Not here: whose turn it is (``parquet``), the encodings (``layout``), what the rows are.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.arrow import SCHEMA_VERSION
from kalshi_fast.compact import event_files
from kalshi_fast.config import writable_directory
from kalshi_fast.errors import SinkError
from kalshi_fast.journal import Cursor, Point
from kalshi_fast.sinks import layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kalshi_fast.journal import Entry, Journal, Position

log = logging.getLogger("kalshi_fast.parquet")

_DAY_NS: Final = 86_400_000_000_000


class _OpenFile:
    """One file in the making. ``final`` is its name once it is complete, ``begin`` its first row's place."""

    def __init__(self, final: Path, begin: Point, schema: pa.Schema, options: dict[str, Any]) -> None:
        self.final = final
        self.begin = begin
        self.pending: list[pa.RecordBatch] = []
        self.pending_rows = 0
        self._temporary = final.with_name(f".{final.name}.{begin.journal[:8]}.tmp")
        self._file = self._temporary.open("wb")
        self._writer = pq.ParquetWriter(self._file, schema, **options)

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def add(self, rows: pa.RecordBatch) -> None:
        self.pending.append(rows)
        self.pending_rows += rows.num_rows

    def flush(self) -> None:
        """Makes a row group of what is pending."""
        if self.pending:
            rows = pa.Table.from_batches(self.pending).unify_dictionaries().combine_chunks()
            self._writer.write_table(rows, row_group_size=layout.ROW_GROUP_ROWS)
            self.pending, self.pending_rows = [], 0

    def finish(self, end: Point) -> None:
        """Completes the file, which holds everything up to ``end``."""
        self.flush()
        begin = self.begin
        self._writer.add_key_value_metadata(
            {
                layout.SCHEMA_VERSION_KEY: str(SCHEMA_VERSION),
                layout.VERSION_KEY: version("kalshi-fast"),
                layout.RECORDER_KEY: end.recorder,
                layout.RANGES_KEY: json.dumps([[begin.journal, begin.seq, begin.row, end.seq, end.row]]),
            }
        )
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.rename(self.final)
        directory = os.open(self.final.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def abandon(self) -> None:
        """Leaves nothing of it behind."""
        with suppress(OSError):  # the disk has refused already: what remains is the temporary file
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class FileSeries:
    """``rows_of(entry)``: this table's rows of an entry, None when it has none. They have ``ingest_ts``,
    which rises, gaps of the order book apart. Raises ConfigError for a directory it cannot use.

    ``idle_s``: without an open file its position is written down no more often. ``at``: behind the last row
    that was handed to the open file, or to nobody because there was none.
    """

    def __init__(
        self,
        root: Path,
        journal: Journal,
        position: Position,
        rows_of: Callable[[Entry], pa.RecordBatch | None],
        schema: pa.Schema,
        *,
        max_bytes: int,
        max_secs: int,
        row_group_rows: int = layout.ROW_GROUP_ROWS,
        idle_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.files: list[Path] = []
        self.max_bytes = max_bytes
        self._journal = journal
        self._position = position
        self._rows_of = rows_of
        self._schema = schema
        self._max_secs = max_secs
        self._row_group_rows = row_group_rows
        self._clock = clock
        self._day = 0
        self._opened = 0.0
        self._idle_s = idle_s
        self._told = -math.inf
        self._file: _OpenFile | None = None
        writable_directory("PARQUET_DIR", self.root)
        for left in self.root.glob(f"date=*/.*.{journal.id[:8]}.tmp"):
            left.unlink()
        if position.point is None or position.point.journal != journal.id:
            position.write(Point(journal.id, journal.first_seq))
        self.restart()

    def restart(self) -> None:
        """Everything from the durable position on; an open file is given up."""
        if self._file is not None:
            self._file.abandon()
            self._file = None
        assert self._position.point is not None  # noqa: S101 - written by __init__
        self.at = self._position.point
        self._certain = False  # that no file of before holds what comes next

    @property
    def done_seq(self) -> int:
        """Batches before it are in complete files."""
        assert self._position.point is not None  # noqa: S101 - written by __init__
        return self._position.point.seq

    def take(self, entry: Entry) -> None:
        """The table's rows of an entry, as far as they have not been taken yet."""
        if entry.end <= self.at.seq:
            return
        recorder = entry.recorder.hex
        if recorder != self.at.recorder:
            self.at = Point(self._journal.id, self.at.seq, self.at.row, recorder=recorder)
        first = self.at.row if entry.seq <= self.at.seq else 0
        rows = self._rows_of(entry)
        if rows is not None and first < rows.num_rows:
            arrived_ns = rows.column("ingest_ts").cast(pa.int64()).to_numpy()
            days = arrived_ns // _DAY_NS
            while first < rows.num_rows:
                day = int(days[first])
                if day != self._day:
                    self.finish()
                others = days[first:] != day  # a gap may be of the date before
                stop = first + int(others.argmax()) if others.any() else rows.num_rows
                if self._file is None:
                    self._make_certain(int(arrived_ns[first]), entry)
                self._store(rows.slice(first, stop - first), int(arrived_ns[first]), entry.seq, stop)
                first = stop
        self._move(entry.end, 0, 0)

    def _move(self, seq: int, row: int, rows: int) -> None:
        self.at = Point(self._journal.id, seq, row, recorder=self.at.recorder, rows=self.at.rows + rows)

    def _store(self, rows: pa.RecordBatch, first_ns: int, seq: int, stop: int) -> None:
        """Rows of one date, into the open file of that date or a new one."""
        file = self._file or self._open(first_ns)
        file.add(rows)
        self._move(seq, stop, rows.num_rows)
        if file.pending_rows >= self._row_group_rows:
            file.flush()
            if file.size_bytes >= self.max_bytes:
                self.finish()

    def _open(self, first_ns: int) -> _OpenFile:
        self._day = first_ns // _DAY_NS
        arrived_us = first_ns // 1000
        directory = self.root / layout.date_name(arrived_us)
        directory.mkdir(parents=True, exist_ok=True)
        while (final := directory / layout.part_name(arrived_us)).exists():
            arrived_us += 1
        self._file = _OpenFile(final, self.at, self._schema, layout.writer_options(self._schema))
        self._opened = self._clock()
        return self._file

    def _make_certain(self, first_ns: int, entry: Entry) -> None:
        """Once after a start: a file that was completed just before a crash may hold what comes next, and the
        position not know it yet. Then the position takes over from there, and SinkError is raised."""
        if self._certain:
            return
        self._certain = True
        point = self.at if entry.seq <= self.at.seq else Point(self._journal.id, entry.seq)
        held = held_until(self.root / layout.date_name(first_ns // 1000), point)
        if held is None:
            return
        log.warning("%s: up to batch %d it is in a file already", self.root, held.seq)
        cursor = Cursor(self._journal, point.seq)
        rows = held.row - point.row
        while cursor.seq < min(held.seq, self._journal.end):
            for passed in cursor.take(0, min(cursor.seq + 100, held.seq)):
                columns = self._rows_of(passed)
                rows += 0 if columns is None else columns.num_rows
        cursor.close()
        self._position.write(
            Point(held.journal, held.seq, held.row, recorder=self.at.recorder, rows=self.at.rows + rows)
        )
        raise SinkError("Parquet: the position was behind its files; beginning again from there")

    def look_after(self, *, hurry: bool) -> None:
        """Completes a file that is old enough, or any when the journal is in a hurry to be rid of its
        rows."""
        if self._file is not None:
            if hurry or self._clock() - self._opened >= self._max_secs:
                self.finish()
        elif self.at.seq > self.done_seq and (hurry or self._clock() - self._told >= self._idle_s):
            self._told = self._clock()
            self._position.write(self.at)

    def finish(self) -> None:
        """Completes the open file, if there is one."""
        if self._file is None:
            return
        if self._journal.fsync != "off":
            self._journal.sync()  # a file never knows of batches that the journal may yet lose
        self._file.finish(self.at)
        self.files.append(self._file.final)
        self._file = None
        self._position.write(self.at)

    def close(self) -> None:
        """The last file; what is not stored by then is for the next time."""
        self.finish()
        self._position.write(self.at)
        self._position.close()


def held_until(directory: Path, point: Point) -> Point | None:
    """The end of the stretch that the files of a date hold and that begins at ``point``."""
    for path in event_files(directory) if directory.is_dir() else ():
        try:
            metadata = pq.read_metadata(path).metadata or {}
            ranges = layout.ranges_of(metadata.get(layout.RANGES_KEY.encode(), b"[]"))
        except (OSError, pa.ArrowException, ValueError) as error:
            log.warning("%s: is left alone, it cannot be read: %s", path, error)
            continue
        for journal, seq, row, end_seq, end_row in ranges:
            if journal == point.journal and (seq, row) <= (point.seq, point.row) < (end_seq, end_row):
                return Point(journal, end_seq, end_row)
    return None
