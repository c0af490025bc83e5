"""One file of a table as an input of a merge: checked on opening, then read in blocks of sorted rows.

Whatever is wrong with it is a CompactError that names the file. Not here: what becomes of rows (``merge``).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.errors import CompactError, excerpt, reason
from kalshi_fast.sinks.layout import PREFIX, RANGES_KEY, SCHEMA_VERSION_KEY, Range, ranges_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SOURCES_KEY: Final = f"{PREFIX}sources"  # what merged files said of themselves that had no ranges yet
_BLOCK_ROWS: Final = 65_536


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What pyarrow and the system say about a file, as our error."""
    try:
        yield
    except FileNotFoundError:
        raise CompactError(f"{path} has gone while it was looked at") from None
    except (pa.ArrowException, OSError) as error:
        raise CompactError(f"{path} cannot be read: {reason(error)}") from error


class Source:
    """A file whose footer, schema and first row are known to be good."""

    def __init__(self, path: Path, schema: pa.Schema = EVENT_SCHEMA) -> None:
        self.path = path
        self.schema = schema
        with readable(path):
            status = path.stat()
            self.bytes, self.modified_s = status.st_size, status.st_mtime
            with self._open() as file:
                self.rows: int = file.metadata.num_rows
                self.metadata = _ours(file.metadata.metadata or {})
                self._check(file.schema_arrow)
                first = next(file.iter_batches(batch_size=1, columns=["ingest_ts"]))
                late = self._late_gaps(file) if schema is EVENT_SCHEMA else []
        self.first_ns = int(_ns(first.column(0))[0])
        self._late: pa.RecordBatch | None = None
        if late:
            self._late = sorted_by_time(joined(late))
            self.first_ns = min(self.first_ns, int(ingest_ns(self._late)[0]))
        self.ranges: list[Range] | None = self._listed(RANGES_KEY, ranges_of)
        self.sources: list[dict[str, Any]] | None = self._listed(SOURCES_KEY, _objects)

    def _open(self) -> pq.ParquetFile:
        # pre_buffer would hold the whole file in memory.
        return pq.ParquetFile(self.path, pre_buffer=False, page_checksum_verification=True)

    def _check(self, schema: pa.Schema) -> None:
        told = self.metadata.get(SCHEMA_VERSION_KEY)
        if told is None or not told.isascii() or not told.isdigit():
            raise CompactError(
                f"{self.path} is not {self._kind} of kalshi-fast: {SCHEMA_VERSION_KEY} is {excerpt(told)}"
            )
        if int(told) > SCHEMA_VERSION:
            raise CompactError(
                f"{self.path} has schema version {told}, and this kalshi-fast knows {SCHEMA_VERSION} at most:"
                " use the version that wrote it"
            )
        if not schema.equals(self.schema):
            there = {field.name: str(field.type) for field in schema}
            ours = {field.name: str(field.type) for field in self.schema}
            odd = [name for name in {**ours, **there} if there.get(name) != ours.get(name)]
            what = "the event schema" if self.schema is EVENT_SCHEMA else "its table"
            raise CompactError(
                f"{self.path} has other columns than {what}: {', '.join(odd) or 'another order'}"
            )
        if self.rows == 0:
            raise CompactError(f"{self.path} holds no rows, and no recorder writes such a file")

    @property
    def _kind(self) -> str:
        return "an event file" if self.schema is EVENT_SCHEMA else "a file of this table"

    def _listed(self, key: str, parse: Callable[[str], list[Any]]) -> list[Any] | None:
        """A list in the metadata, None when there is none."""
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise CompactError(f"{self.path}: {key}: {error}, got {excerpt(text)}") from error

    def _late_gaps(self, file: pq.ParquetFile) -> list[pa.RecordBatch]:
        """Gaps that are behind later rows: their time is that of the last good frame before the loss."""
        found, last_ns = [], -(2**63)
        for group in range(file.num_row_groups):
            marks = file.read_row_group(group, columns=["type", "ingest_ts"])
            if marks.num_rows == 0 or marks["ingest_ts"].null_count:
                continue  # the second is found, and said, where the rows are read
            late, last_ns = _late(marks, last_ns)
            if late.any():
                rows = file.read_row_group(group).filter(pa.array(late))
                found += rows.combine_chunks().to_batches()
        return found

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """All rows in the order of ``ingest_ts``. Raises CompactError where that is missing, where it falls
        and the row is no gap, and where a page is damaged."""
        waiting = self._late
        for rows in self._stored_blocks():
            if waiting is None:
                yield rows
                continue
            n = int(np.searchsorted(ingest_ns(waiting), ingest_ns(rows)[-1], "right"))
            yield sorted_by_time(joined([rows, waiting.slice(0, n)])) if n else rows
            waiting = waiting.slice(n) if n < waiting.num_rows else None
        if waiting is not None:
            yield waiting

    def _stored_blocks(self) -> Iterator[pa.RecordBatch]:
        """The rows as they are stored, late gaps left out."""
        with readable(self.path), self._open() as file:
            last_ns, rows = self.first_ns, 0
            for batch in file.iter_batches(batch_size=_BLOCK_ROWS):
                if batch.column("ingest_ts").null_count:
                    raise CompactError(f"{self.path} has rows without ingest_ts")
                stored = batch.num_rows
                if self._late is not None:
                    late, _ = _late(pa.Table.from_batches([batch]), last_ns)
                    batch = batch.filter(pa.array(~late))
                    if not batch.num_rows:
                        rows += stored
                        continue
                times = ingest_ns(batch)
                falls = np.flatnonzero(np.diff(times, prepend=last_ns) < 0)
                if len(falls):
                    raise CompactError(
                        f"{self.path} is not in the order of ingest_ts: row {rows + int(falls[0])} is before"
                        " its predecessor"
                    )
                last_ns, rows = int(times[-1]), rows + stored
                yield batch
        if rows != self.rows:
            raise CompactError(f"{self.path} has {rows} rows, and its footer says {self.rows}")


def _late(rows: pa.Table, last_ns: int) -> tuple[NDArray[np.bool_], int]:
    """Which rows are gaps and earlier than a row before them, or than ``last_ns``; and the latest time."""
    times = _ns(rows["ingest_ts"].combine_chunks())
    latest = np.maximum(np.maximum.accumulate(times), last_ns)
    gaps: NDArray[np.bool_] = np.asarray(pa.compute.equal(rows["type"].cast(pa.string()), "gap"))
    return gaps & (times < latest), int(latest[-1])


def sorted_by_time(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in the order of ``ingest_ts``, equal ones as they are."""
    times = ingest_ns(rows)
    if (times[1:] < times[:-1]).any():
        rows = rows.take(pa.array(np.argsort(times, kind="stable")))
    return rows


def joined(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of several whose dictionaries may differ."""
    if len(parts) == 1:
        return parts[0]
    table = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()
    (batch,) = table.to_batches()
    return batch


def _objects(text: str) -> list[dict[str, Any]]:
    """Raises ValueError."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("expected a list of objects")
    return entries


def _ns(column: pa.Array) -> NDArray[np.int64]:
    times: NDArray[np.int64] = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return times


def ingest_ns(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """The receive times of a batch."""
    return _ns(batch.column("ingest_ts"))


def _ours(metadata: dict[bytes, bytes]) -> dict[str, str]:
    texts = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in metadata.items()
    }
    return {key: value for key, value in texts.items() if key.startswith(PREFIX)}
