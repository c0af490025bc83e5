"""Parquet files of order-book events: ``DIR/orderbook/date=YYYY-MM-DD/part-HHmmss_microseconds.parquet``.

Rows stand in order of arrival; date and file name are the receive time (UTC) of the file's first row, and
no file holds two dates. A file is written under a temporary name and takes its own when it is complete:
at ``max_bytes``, after ``max_secs``, at midnight or on ``close``. Its metadata tells which stretch of which
journal it holds, so that after a crash nothing is written twice. Until a file is complete the journal keeps
its rows. Not here: level states (they are current, not history), the encodings (``layout``).
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.compact import event_files
from kalshi_fast.config import writable_directory
from kalshi_fast.errors import SinkError
from kalshi_fast.journal import Cursor, Point
from kalshi_fast.sinks import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kalshi_fast.journal import Entry, Journal, Position
    from kalshi_fast.sinks.rejects import RejectSink

log = logging.getLogger("kalshi_fast.parquet")

_DAY_NS: Final = 86_400_000_000_000
TAKE_ROWS: Final = 65_536


class _OpenFile:
    """One file in the making. ``final`` is its name once it is complete, ``begin`` its first row's place."""

    def __init__(self, final: Path, begin: Point) -> None:
        self.final = final
        self.begin = begin
        self.pending: list[pa.RecordBatch] = []
        self.pending_rows = 0
        self._temporary = final.with_name(f".{final.name}.{begin.journal[:8]}.tmp")
        self._file = self._temporary.open("wb")
        self._writer = pq.ParquetWriter(self._file, EVENT_SCHEMA, **layout.writer_options())

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


class ParquetSink:
    """Delivers the journal to files. Raises ConfigError for a directory it cannot use."""

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
        row_group_rows: int = layout.ROW_GROUP_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows = 0
        self.files: list[Path] = []
        self.hurry = False  # the journal wants to be rid of what the open file still holds back
        self._root = directory / "orderbook"
        self._journal = journal
        self._position = position
        self._rejects = rejects
        self._max_bytes = max_bytes
        self._max_secs = max_secs
        self._row_group_rows = row_group_rows
        self._clock = clock
        self._day = 0
        self._opened = 0.0
        self._file: _OpenFile | None = None
        writable_directory("PARQUET_DIR", self._root)
        for left in self._root.glob(f"date=*/.*.{journal.id[:8]}.tmp"):
            left.unlink()
        if position.point is None or position.point.journal != journal.id:
            position.write(Point(journal.id, journal.first_seq))
        self._start()

    def _start(self) -> None:
        """Everything from the durable position on."""
        point = self._position.point
        assert point is not None  # noqa: S101 - written by __init__
        self._at = point  # behind the last row that was handed to the file
        self._cursor = Cursor(self._journal, point.seq)
        self._certain = False  # that no file of before holds what comes next
        self.rows = point.rows if point.recorder == self._journal.recorder.hex else 0

    @property
    def done_seq(self) -> int:
        assert self._position.point is not None  # noqa: S101 - written by __init__
        return self._position.point.seq

    def step(self) -> bool:
        with self._disk():
            entries = self._cursor.take(TAKE_ROWS)
            for entry in entries:
                if self._rejects is not None:
                    self._rejects.write(entry)
                self._take(entry)
            opened = self._file is not None
            if opened and (self.hurry or self._clock() - self._opened >= self._max_secs):
                self._finish()
            elif entries and not opened:
                self._position.write(self._at)
            self.hurry = False
        return bool(entries)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(f"Parquet takes no rows: {error.strerror or error} ({self._root})") from error

    def _take(self, entry: Entry) -> None:
        recorder = entry.recorder.hex
        if recorder != self._at.recorder:
            self._at = Point(self._journal.id, self._at.seq, self._at.row, recorder=recorder)
        first = self._at.row if entry.seq == self._at.seq else 0
        if entry.events is not None and first < entry.rows:
            rows = entry.names.events(entry.events)
            arrived_ns = entry.events.column("ingest_ns").to_numpy()
            while first < entry.rows:
                day = int(arrived_ns[first]) // _DAY_NS
                if day != self._day:
                    self._finish()
                stop = entry.rows
                if int(arrived_ns[stop - 1]) // _DAY_NS != day:
                    stop = first + int((arrived_ns[first:] // _DAY_NS != day).argmax())
                if self._file is None and self._jumped(int(arrived_ns[first]), entry):
                    return
                self._store(rows.slice(first, stop - first), int(arrived_ns[first]), entry.seq, stop)
                first = stop
        self._move(entry.end, 0, 0)

    def _move(self, seq: int, row: int, rows: int) -> None:
        self.rows = self._at.rows + rows
        self._at = Point(self._journal.id, seq, row, recorder=self._at.recorder, rows=self.rows)

    def _store(self, rows: pa.RecordBatch, first_ns: int, seq: int, stop: int) -> None:
        """Rows of one date, into the open file of that date or a new one."""
        file = self._file or self._open(first_ns)
        file.add(rows)
        self._move(seq, stop, rows.num_rows)
        if file.pending_rows >= self._row_group_rows:
            file.flush()
            if file.size_bytes >= self._max_bytes:
                self._finish()

    def _open(self, first_ns: int) -> _OpenFile:
        self._day = first_ns // _DAY_NS
        arrived_us = first_ns // 1000
        directory = self._root / layout.date_name(arrived_us)
        directory.mkdir(parents=True, exist_ok=True)
        while (final := directory / layout.part_name(arrived_us)).exists():
            arrived_us += 1
        self._file = _OpenFile(final, self._at)
        self._opened = self._clock()
        return self._file

    def _jumped(self, first_ns: int, entry: Entry) -> bool:
        """Once after a start: a file that was completed just before a crash may hold what comes next, and the
        position not know it yet. Then the position takes over from there, and True is returned."""
        if self._certain:
            return False
        self._certain = True
        point = self._at if entry.seq == self._at.seq else Point(self._journal.id, entry.seq)
        held = held_until(self._root / layout.date_name(first_ns // 1000), point)
        if held is None:
            return False
        log.warning("%s: up to batch %d it is in a file already", self._root, held.seq)
        cursor = Cursor(self._journal, point.seq)
        rows = held.row - point.row
        while cursor.seq < min(held.seq, self._journal.end):
            rows += sum(entry.rows for entry in cursor.take(0, min(cursor.seq + 100, held.seq)))
        cursor.close()
        self._position.write(
            Point(held.journal, held.seq, held.row, recorder=self._at.recorder, rows=self._at.rows + rows)
        )
        raise SinkError("Parquet: the position was behind its files; beginning again from there")

    def _finish(self) -> None:
        if self._file is None:
            return
        if self._journal.fsync != "off":
            self._journal.sync()  # a file never knows of batches that the journal may yet lose
        self._file.finish(self._at)
        self.files.append(self._file.final)
        self._file = None
        self._position.write(self._at)

    def reset(self) -> None:
        """After a failure: what was not completed is read from the journal again."""
        if self._file is not None:
            self._file.abandon()
            self._file = None
        self._cursor.close()
        self._start()

    def close(self) -> None:
        """Completes the open file."""
        with self._disk():
            self._finish()
            self._position.write(self._at)
        self._cursor.close()
        self._position.close()
        if self._rejects is not None:
            self._rejects.close()


def held_until(directory: Path, point: Point) -> Point | None:
    """The end of the stretch that the files of a date hold and that begins at ``point``."""
    for path in event_files(directory) if directory.is_dir() else ():
        try:
            metadata = pq.read_metadata(path).metadata or {}
            ranges = json.loads(metadata.get(layout.RANGES_KEY.encode(), b"[]"))
        except (OSError, pa.ArrowException, ValueError) as error:
            log.warning("%s: is left alone, it cannot be read: %s", path, error)
            continue
        for journal, seq, row, end_seq, end_row in ranges:
            if journal == point.journal and (seq, row) <= (point.seq, point.row) < (end_seq, end_row):
                return Point(journal, end_seq, end_row)
    return None
