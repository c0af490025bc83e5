"""What lies beside ``orderbook/`` in PARQUET_DIR: Parquet files of the other tables, lines of raw frames.

The same care as for the books' files: footers, schemas, checksums and the order of rows are looked at, and
what is wrong is a ReplayError, or with ``repair`` put right or left out with a ReplayWarning. Not here: which
trade has come before (``beside``).
"""

from __future__ import annotations

import base64
import glob
import heapq
import itertools
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_fast.errors import ReplayError, reason
from kalshi_fast.interleave import OF_NO_MARKET, TABLES
from kalshi_fast.replaying.beside import FILLED, RAW_SCHEMA, STORED, conform
from kalshi_fast.replaying.files import EventFile, Group, find_files, look_at_all, open_footer, opened, warn
from kalshi_fast.replaying.merge import Stream, merge
from kalshi_fast.replaying.times import Count, iso

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from numpy.typing import NDArray

_BLOCK_ROWS: Final = 16_384  # an announcement may have 64 KiB
_RAW_ROWS: Final = 4096
_BOOKS: Final = "orderbook"
_RAW_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(-.*)?\.ndjson(\.gz)?")


class Block:
    """Rows of a table, as ``merge`` wants them."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self.rows = rows
        self.ingest_ns: NDArray[np.int64] = rows.column("ingest_ts").view(pa.int64()).to_numpy()

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def slice(self, first: int, stop: int) -> Block:
        return Block(self.rows.slice(first, stop - first))

    def take(self, rows: NDArray[Any]) -> Block:
        return Block(self.rows.take(pa.array(rows)))


def joined(blocks: list[Block]) -> Block:
    """The rows of several blocks, one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(_whole([block.rows for block in blocks]))


def _holds(path: Path, *tables: str) -> bool:
    """Is there a directory of one of these tables below?"""
    return any(one.is_dir() for table in tables for one in path.rglob(table))


def _named_at(parts: tuple[str, ...]) -> int | None:
    """Where a path says of which table it is: at its end, or before a date or a pattern. What the
    directories further up are called means nothing."""
    at = len(parts) - 1
    while at > 0 and (parts[at].startswith("date=") or glob.has_magic(parts[at])):
        at -= 1
    return at if at >= 0 and parts[at] in (_BOOKS, *TABLES) else None


class RawLine(msgspec.Struct):
    """A frame as ``sinks.ndjson`` writes it."""

    ingest_ns: Count
    conn_id: Count
    channel: str
    payload: str | None = None
    payload_base64: str | None = None

    @property
    def bytes(self) -> bytes:
        """Raises ValueError."""
        if (self.payload is None) == (self.payload_base64 is None):
            raise ValueError("expected one of payload and payload_base64")
        if self.payload is not None:
            return self.payload.encode()
        return base64.b64decode(self.payload_base64 or "", validate=True)


_LINE: Final = msgspec.json.Decoder(RawLine)


class BesideFiles:
    """``BesideFiles(source)``: the recording that ``source`` is, or is the books of. Raises ReplayError."""

    def __init__(
        self,
        source: str | Path,
        *,
        markets: Iterable[str] | None = None,
        end_ns: int | None = None,
        repair: bool = False,
    ) -> None:
        self._source = source
        markets = [markets] if isinstance(markets, str) else markets
        self._wanted = None if markets is None else frozenset(markets)
        self._end_ns = end_ns
        self._repair = repair

    def close(self) -> None:
        """Nothing stays open between two readings."""

    def tables(self) -> Collection[str]:
        return [table for table in TABLES if self._place(table) is not None]

    def lacks(self, table: str) -> ReplayError:
        what = table.replace("_", " ")
        if Path(self._source).is_file():
            return ReplayError(
                f"one file of the books has no {what} beside it: give PARQUET_DIR", self._source
            )
        if not Path(self._source).exists() and not glob.has_magic(str(self._source)):
            return ReplayError("there is nothing", self._source)
        how = {"raw": "--raw", "reference_prices": "--reference"}.get(table, "CHANNELS")
        return ReplayError(
            f"no {what} are recorded there, no directory {table}/ ({how} says what is)", self._source
        )

    def beside(self, table: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        place = self._place(table)
        if place is None:
            raise self.lacks(table)
        return self._raw(place, since_ns) if table == "raw" else self._rows(table, place, since_ns)

    def _place(self, table: str) -> str | None:
        """The path or pattern where the table's files are; None when there are none."""
        path = Path(self._source)
        if path.is_file():
            return None
        if path.is_dir() and _holds(path, _BOOKS, *TABLES):
            return str(path) if _holds(path, table) else None
        at = _named_at(path.parts)
        if at is None:
            return None
        path = Path(*path.parts[:at], table, *path.parts[at + 1 :])
        if path.is_dir() or (Path(*path.parts[: at + 1]).is_dir() and glob.has_magic(str(path))):
            return str(path)
        return None

    # --- Parquet ----------------------------------------------------------------------------------

    def _rows(self, table: str, place: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        files = look_at_all(find_files(place, self._end_ns, table), repair=self._repair, schema=STORED[table])
        streams = [
            Stream(first_ns, lambda f=file, g=groups: self._read(table, f, g, since_ns))  # type: ignore[misc]
            for file in files
            for first_ns, groups in self._runs(file, since_ns)
        ]
        streams.sort(key=lambda stream: stream.first_ns)
        return (block.rows for block in merge(streams, joined))

    def _runs(self, file: EventFile, since_ns: int | None) -> Iterator[tuple[int, list[Group]]]:
        """Row groups to be read one after the other."""
        groups = [
            group
            for group in file.groups
            if (self._end_ns is None or group.first_ns < self._end_ns)
            and (since_ns is None or group.last_ns >= since_ns)
            and group.may_hold(self._wanted)
        ]
        if self._repair and not file.ordered:
            yield from ((group.first_ns, [group]) for group in groups)
        elif groups:
            yield file.first_ns, groups  # so that files of one moment have one order, whatever is wanted

    def _read(
        self, table: str, file: EventFile, groups: list[Group], since_ns: int | None
    ) -> Iterator[Block]:
        last_ns = groups[0].first_ns
        with open_footer(file.path) as parquet:
            for group in groups:
                try:
                    batches = parquet.iter_batches(_BLOCK_ROWS, [group.index], STORED[table].names)
                    if self._repair:  # what is out of order may be so by a whole row group
                        batches = iter([_whole(list(batches))])
                    for batch in batches:
                        block = self._block(table, batch, file.path, group, last_ns)
                        last_ns = int(block.ingest_ns[-1]) if len(block) else last_ns
                        chosen = self._chosen(table, block, since_ns)
                        if len(chosen):
                            yield chosen
                except (pa.ArrowException, OSError, ReplayError) as error:
                    if not isinstance(error, ReplayError):
                        error = ReplayError(f"cannot be read: {reason(error)}", file.path, group.index)
                    if not self._repair:
                        raise error from None
                    warn(f"{error}; left out")

    def _block(self, table: str, batch: pa.RecordBatch, path: Path, group: Group, last_ns: int) -> Block:
        """The rows in order."""
        rows = conform(batch, STORED[table])
        for name in rows.schema.names:
            nulls = rows.column(name).null_count
            if nulls and name in FILLED.get(table, rows.schema.names):
                raise ReplayError(f"{name} is empty in {nulls} rows", path, group.index)
        block = Block(rows)
        if len(block) and (np.diff(block.ingest_ns, prepend=last_ns) < 0).any():
            if not self._repair:
                raise ReplayError("its rows are not in the order of ingest_ts", path, group.index)
            warn(f"{path}, row group {group.index}: its rows are not in the order of ingest_ts; put in order")
            block = block.take(np.argsort(block.ingest_ns, kind="stable"))
        return block

    def _chosen(self, table: str, block: Block, since_ns: int | None) -> Block:
        """Those of the wanted markets and stretch of time."""
        first = 0 if since_ns is None else int(np.searchsorted(block.ingest_ns, since_ns))
        stop = len(block) if self._end_ns is None else int(np.searchsorted(block.ingest_ns, self._end_ns))
        if (first, stop) != (0, len(block)):
            block = block.slice(first, max(first, stop))
        if self._wanted is None or not len(block) or table in OF_NO_MARKET:
            return block
        column = block.rows.column("market_ticker")
        wanted = pc.is_in(column.dictionary, pa.array(sorted(self._wanted), pa.string()))
        mask = wanted.to_numpy(zero_copy_only=False)[column.indices.to_numpy()]
        return block if mask.all() else Block(block.rows.filter(pa.array(mask)))

    # --- raw frames -------------------------------------------------------------------------------

    def _raw(self, place: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        lines = (
            line for line in self._lines(place, since_ns) if since_ns is None or line.ingest_ns >= since_ns
        )
        if self._end_ns is not None:
            end_ns = self._end_ns
            lines = itertools.takewhile(lambda line: line.ingest_ns < end_ns, lines)  # type: ignore[assignment]
        while some := list(itertools.islice(lines, _RAW_ROWS)):
            yield raw_batch((line.ingest_ns, line.conn_id, line.channel, line.bytes) for line in some)

    def _lines(self, place: str, since_ns: int | None) -> Iterator[RawLine]:
        """All lines, date by date; files of several recorders in one order."""
        path = Path(place)
        if glob.has_magic(place):
            found = [Path(name) for name in glob.glob(place, recursive=True)]  # noqa: PTH207 - may be absolute
        else:
            roots = [one for one in path.rglob("raw") if one.is_dir()] or [path]
            found = [file for root in roots for file in root.iterdir()]
        dates: dict[str, dict[str, list[Path]]] = {}
        for file in sorted(found):
            named = _RAW_NAME.fullmatch(file.name)
            if named is None or (since_ns is not None and named[1] < iso(since_ns)[:10]):
                continue
            if self._end_ns is None or named[1] <= iso(self._end_ns)[:10]:
                recorder = f"{file.parent}/{(named[2] or '').rpartition('-')[0]}"
                dates.setdefault(named[1], {}).setdefault(recorder, []).append(file)
        for _, recorders in sorted(dates.items()):
            yield from heapq.merge(*map(self._of_files, recorders.values()), key=lambda line: line.ingest_ns)

    def _of_files(self, paths: list[Path]) -> Iterator[RawLine]:
        last_ns = 0
        for path in paths:
            try:
                with opened(path) as file:
                    for number, text in enumerate(file, 1):
                        if not text.endswith(b"\n"):
                            break  # being written, or left by a crash to be written again
                        try:
                            line = _LINE.decode(text)
                            line.bytes  # noqa: B018 - base64 that is none is an error here
                            if line.ingest_ns < last_ns:
                                raise ValueError("it was received before the line before it")
                        except (msgspec.DecodeError, RecursionError, ValueError) as error:
                            self._wrong(f"line {number} is no raw frame: {reason(error)}", path)
                            continue
                        last_ns = line.ingest_ns
                        yield line
            except (OSError, EOFError, zlib.error) as error:
                self._wrong(f"cannot be read: {reason(error)}", path)

    def _wrong(self, what: str, path: Path) -> None:
        if not self._repair:
            raise ReplayError(what, path)
        warn(f"{path}: {what}; left out")


def raw_batch(frames: Iterable[tuple[int, int, str, bytes]]) -> pa.RecordBatch:
    """Raw frames as columns of RAW_SCHEMA."""
    columns = zip(*frames, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_SCHEMA)


def _whole(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()[0]
