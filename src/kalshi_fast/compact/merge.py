"""Merges files of a table into one, ordered by (ingest_ts, file, row), and proves that it has the same rows.

Memory stays bounded: of each file that overlaps the present moment one block is held, of the output one row
group. The rows' digest is taken three times: as they are read, as they are merged, and of the finished file
read again from the start. Not here: which files (``days``), putting the result in place (``swap``).
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.compact.digest import Digest
from kalshi_fast.compact.source import SOURCES_KEY, Source, ingest_ns, joined, sorted_by_time
from kalshi_fast.errors import CompactError
from kalshi_fast.sinks.layout import (
    PREFIX,
    RANGES_KEY,
    RECORDER_KEY,
    ROW_GROUP_ROWS,
    SCHEMA_VERSION_KEY,
    VERSION_KEY,
    Range,
    writer_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

_BATCHES_KEY: Final = f"{PREFIX}batches"


def write_merged(sources: Sequence[Source], output: Path, progress: Callable[[int], None]) -> int:
    """Writes ``output`` (which must not exist), flushed to the disk; returns its rows.

    ``progress`` gets the rows done, each counted twice: written and verified. Raises CompactError; then
    there is no output.
    """
    try:
        read, merged = Digest(), Digest()
        schema = sources[0].schema
        with output.open("xb") as file, _writer(file, schema) as writer:
            for group in _row_groups(_merged_blocks(sources, read)):
                merged.add(group)
                writer.write_batch(group)
                progress(merged.count)
            writer.add_key_value_metadata(merged_metadata(sources))
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        _verify(output, read, merged, progress, schema)
    except OSError as error:
        output.unlink(missing_ok=True)
        raise CompactError(f"{output} cannot be written: {error.strerror or error}") from error
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    return merged.count


@contextmanager
def _writer(file: BinaryIO, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    order = [pq.SortingColumn(schema.get_field_index("ingest_ts"))]
    writer = pq.ParquetWriter(file, schema, **writer_options(schema), sorting_columns=order)
    try:
        yield writer
    finally:
        # After an error: what it still wants to write is thrown away, but not before the file is closed.
        with suppress(OSError):
            writer.close()
        writer.is_open = False  # else its finalizer tries once more


def _verify(
    output: Path,
    read: Digest,
    merged: Digest,
    progress: Callable[[int], None],
    schema: pa.Schema = EVENT_SCHEMA,
) -> None:
    """Reads the file again, with all checks of an input: same rows as were read, same order as merged."""
    stored = Digest()
    for block in Source(output, schema).blocks():
        stored.add(block)
        progress(merged.count + stored.count)
    if stored != merged or stored.rows != read.rows:
        raise CompactError(
            f"{output} does not hold the rows that it was made of ({read.count} read, {stored.count} stored):"
            " the files stay as they are; please report this"
        )


# --- the order of rows --------------------------------------------------------------------------------


def in_time_order(sources: Sequence[Source]) -> list[Source]:
    """By their first rows; the name decides between files that begin in one moment."""
    return sorted(sources, key=lambda source: (source.first_ns, source.path.name))


class _Stream:
    """The rows of one file that have been read and not yet merged."""

    def __init__(self, source: Source, read: Digest) -> None:
        self._blocks = source.blocks()
        self._read = read
        self.rows = pa.RecordBatch.from_pylist([], source.schema)
        self.ended = False
        self.more()

    def more(self) -> None:
        """One more block behind the rows that are here."""
        block = next(self._blocks, None)
        if block is None:
            self.ended = True
            return
        self._read.add(block)
        self.rows = joined([self.rows, block]) if self.rows.num_rows else block

    @property
    def last_ns(self) -> int:
        return int(ingest_ns(self.rows)[-1])

    def take_before(self, ns: int | None) -> pa.RecordBatch:
        """Removes and returns the rows before a moment (None: all of them)."""
        n = self.rows.num_rows if ns is None else int(np.searchsorted(ingest_ns(self.rows), ns))
        taken = self.rows.slice(0, n)
        self.rows = self.rows.slice(n)
        return taken


def _merged_blocks(sources: Sequence[Source], read: Digest) -> Iterator[pa.RecordBatch]:
    waiting = in_time_order(sources)
    streams: list[_Stream] = []  # in the order of the files: that is the order of rows of one moment
    while waiting or streams:
        for stream in streams:
            if not stream.rows.num_rows and not stream.ended:
                stream.more()
        streams = [stream for stream in streams if stream.rows.num_rows]
        # Before the limit nothing can come any more that is not here: neither from a file that has been
        # read in part, nor from one that has not been opened.
        slowest = min((s for s in streams if not s.ended), key=lambda s: s.last_ns, default=None)
        limit = None if slowest is None else slowest.last_ns
        opens = bool(waiting) and (limit is None or waiting[0].first_ns <= limit)
        if opens:
            limit = waiting[0].first_ns
        parts = [part for stream in streams if (part := stream.take_before(limit)).num_rows]
        if parts:
            yield sorted_by_time(joined(parts))
        elif opens:
            streams.append(_Stream(waiting.pop(0), read))
        elif slowest is not None:
            slowest.more()  # what follows may belong to the same moment


def _row_groups(blocks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of ROW_GROUP_ROWS, the last one shorter."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for block in blocks:
        held.append(block)
        rows += block.num_rows
        while rows >= ROW_GROUP_ROWS:
            batch = joined(held)
            yield _slim(batch.slice(0, ROW_GROUP_ROWS))
            held = [batch.slice(ROW_GROUP_ROWS)]
            rows -= ROW_GROUP_ROWS
    if rows:
        yield _slim(joined(held))


def _slim(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Without dictionary values that no row has: they would go into the file."""
    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and not column.null_count:
            codes = column.indices.to_numpy()
            used = np.flatnonzero(np.bincount(codes, minlength=len(column.dictionary)))
            renumbered = np.zeros(len(column.dictionary), codes.dtype)
            renumbered[used] = np.arange(len(used))
            values = column.dictionary.take(pa.array(used))
            column = pa.DictionaryArray.from_arrays(pa.array(renumbered[codes]), values)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


# --- what the file says of itself ---------------------------------------------------------------------


def merged_metadata(sources: Sequence[Source]) -> dict[str, str]:
    """Where the rows come from. What all inputs say alike, and is not ours to make anew, is kept."""
    sources = in_time_order(sources)
    kept = dict(set.intersection(*(set(source.metadata.items()) for source in sources)))
    recorders = {name for source in sources for name in source.metadata.get(RECORDER_KEY, "").split(",")}
    metadata = {
        **{key: value for key, value in kept.items() if key not in (_BATCHES_KEY, SOURCES_KEY, RANGES_KEY)},
        SCHEMA_VERSION_KEY: str(SCHEMA_VERSION),
        VERSION_KEY: version("kalshi-fast"),
        RECORDER_KEY: ",".join(sorted(recorders - {""})),
    }
    if any(source.ranges is not None for source in sources):
        metadata[RANGES_KEY] = json.dumps(joined_ranges([r for s in sources for r in s.ranges or []]))
    if old := [told for source in sources for told in _told(source)]:
        metadata[SOURCES_KEY] = json.dumps(old)
    return metadata


def joined_ranges(ranges: Sequence[Range]) -> list[Range]:
    """In the order given; a range that begins where an earlier one of its journal ends goes on with it."""
    found: list[Range] = []
    last: dict[Any, Range] = {}  # of each journal
    for journal, *bounds in ranges:
        before = last.get(journal)
        if before is not None and before[3:] == bounds[:2]:
            before[3:] = bounds[2:]
        else:
            found.append([journal, *bounds])
            last[journal] = found[-1]
    return found


def _told(source: Source) -> list[dict[str, Any]]:
    """Files from before there were ranges: what they said, with their names and rows."""
    if source.sources is not None:
        return source.sources
    if source.ranges is not None:
        return []
    told: dict[str, Any] = {"name": source.path.name, "rows": source.rows}
    for key in (RECORDER_KEY, _BATCHES_KEY):
        if key in source.metadata:
            told[key.removeprefix(PREFIX)] = source.metadata[key]
    return [told]
