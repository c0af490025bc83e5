"""Parquet files of order-book events: ``DIR/orderbook/date=YYYY-MM-DD/part-HHmmss_microseconds.parquet``.

Rows stand in order of arrival; date and file name are the receive time (UTC) of the file's first row, and
no file holds two dates. A file is written under a temporary name and takes its own when it is complete:
at ``max_bytes``, after ``max_secs``, at midnight or on ``close``. Its metadata tells the schema version,
the recorder and the batches it holds. Not here: level states (they are current, not history).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast._columns import EventColumns
from kalshi_fast.batch import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.config import writable_directory
from kalshi_fast.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from kalshi_fast.batch import ArrowViews, Batch

ROW_GROUP_ROWS: Final = 65_536
_DAY_NS: Final = 86_400_000_000_000
_DICTIONARY_COLUMNS = ["type", "conn_id", "sid", "market_id", "market_ticker", "side", "price_e4"]


class _OpenFile:
    """One file in the making. ``final`` is its name once it is complete."""

    def __init__(self, final: Path, recorder: str) -> None:
        self.final = final
        self.first_batch = 0
        self.last_batch = 0
        self._recorder = recorder
        self._temporary = final.with_name(f".{final.name}.tmp")
        self._file: BinaryIO = self._temporary.open("xb")
        self._writer = pq.ParquetWriter(
            self._file,
            EVENT_SCHEMA,
            compression="zstd",
            use_dictionary=_DICTIONARY_COLUMNS,
            write_statistics=True,
            version="2.6",
        )

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def write(self, rows: pa.RecordBatch) -> None:
        self._writer.write_batch(rows)

    def finish(self) -> None:
        self._writer.add_key_value_metadata(
            {
                "kalshi_fast.schema_version": str(SCHEMA_VERSION),
                "kalshi_fast.version": version("kalshi-fast"),
                "kalshi_fast.recorder": self._recorder,
                "kalshi_fast.batches": f"{self.first_batch}-{self.last_batch}",
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


class ParquetSink:
    """Collects rows into row groups of its own memory; raises ConfigError for a directory it cannot use."""

    name = "Parquet"

    def __init__(
        self,
        directory: Path,
        views: ArrowViews,
        *,
        recorder: str,
        max_bytes: int,
        max_secs: int,
        row_group_rows: int = ROW_GROUP_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows = 0
        self.files: list[Path] = []
        self._root = directory / "orderbook"
        self._views = views
        self._recorder = recorder
        self._max_bytes = max_bytes
        self._max_secs = max_secs
        self._clock = clock
        self._pending = EventColumns(row_group_rows)
        self._names = (0, 0)
        self._day = 0
        self._opened = 0.0
        self._file: _OpenFile | None = None
        writable_directory("PARQUET_DIR", self._root)

    def write(self, batches: Sequence[Batch]) -> None:
        with self._disk():
            for batch in batches:
                self._take(batch)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(f"Parquet takes no rows: {error.strerror or error} ({self._root})") from error

    def _take(self, batch: Batch) -> None:
        arrived_ns = batch.events.arrays["ingest_ns"]
        self._names = batch.names
        start, rows = 0, batch.events.n
        while start < rows:
            day = int(arrived_ns[start]) // _DAY_NS
            if day != self._day:
                self._finish()
            stop = rows
            if int(arrived_ns[rows - 1]) // _DAY_NS != day:
                other = arrived_ns[start:rows] // _DAY_NS != day
                stop = start + int(other.argmax())
            self._store(batch, start, stop)
            start = stop

    def _store(self, batch: Batch, start: int, stop: int) -> None:
        """Rows of one date, into the open file of that date or a new one."""
        while start < stop:
            if self._file is None:
                self._open(int(batch.events.arrays["ingest_ns"][start]), batch.number)
            assert self._file is not None  # noqa: S101
            taken = self._pending.extend(batch.events, start, stop)
            self._file.last_batch = batch.number
            self.rows += taken
            start += taken
            if self._pending.n == self._pending.capacity:
                self._flush()
                if self._file.size_bytes >= self._max_bytes:
                    self._finish()

    def _open(self, first_ns: int, batch_number: int) -> None:
        self._day = first_ns // _DAY_NS
        arrived_us = first_ns // 1000
        while True:
            moment = datetime.fromtimestamp(arrived_us // 1_000_000, UTC)
            directory = self._root / f"date={moment:%Y-%m-%d}"
            final = directory / f"part-{moment:%H%M%S}_{arrived_us % 1_000_000:06d}.parquet"
            directory.mkdir(exist_ok=True)
            if not final.exists():
                break
            arrived_us += 1
        self._file = _OpenFile(final, self._recorder)
        self._file.first_batch = self._file.last_batch = batch_number
        self._opened = self._clock()

    def _flush(self) -> None:
        if self._file is not None and self._pending.n:
            self._file.write(self._views.events(self._pending, self._names))
        self._pending.begin()

    def _finish(self) -> None:
        if self._file is None:
            return
        self._flush()
        self._file.finish()
        self.files.append(self._file.final)
        self._file = None

    def tick(self) -> None:
        """Closes the file that has been open for ``max_secs``."""
        if self._file is not None and self._clock() - self._opened >= self._max_secs:
            with self._disk():
                self._finish()

    def close(self) -> None:
        """Completes the open file."""
        with self._disk():
            self._finish()
