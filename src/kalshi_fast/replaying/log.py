"""Events from a recorder's journal, also while it is being written: what has not reached a store is there.

What cannot be read of it becomes gaps, by the rules that its own readers have. Not here: those rules, and the
records (``journal``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast.books import HANDOVER_NS
from kalshi_fast.channels.rows import arrow
from kalshi_fast.errors import ReplayError
from kalshi_fast.interleave import OF_NO_MARKET, TABLES
from kalshi_fast.journal import segments
from kalshi_fast.journal.records import BATCH
from kalshi_fast.journal.replay import DamagedError, Entry, ReadState, arrays, beginning, scan
from kalshi_fast.replaying.beside_files import raw_batch
from kalshi_fast.replaying.chunks import Chunk, in_order, join, make_chunk
from kalshi_fast.replaying.merge import Stream, ahead, merge
from kalshi_fast.replaying.source import Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

_CHUNK_ROWS: Final = 65_536
_BESIDE_ROWS: Final = 4096


class JournalSource(Source):
    """``JournalSource(directory)``. Nothing in the directory is locked or changed."""

    def __init__(
        self,
        directory: Path,
        *,
        markets: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        super().__init__(markets=markets, start_ns=start_ns, end_ns=end_ns)
        self._directory = directory

    def _chunks(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        return ahead(self._read(columns))

    # --- beside the books -------------------------------------------------------------------------

    def tables(self) -> Collection[str]:
        return TABLES

    def lacks(self, table: str) -> ReplayError:
        return ReplayError(f"a journal has no {table}", self._directory)

    def beside(self, table: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        pending: list[Any] = []
        for entry in self._entries():
            rows: list[Any] = entry.extra.raw if table == "raw" else getattr(entry.extra.channels, table)
            pending += [row for row in rows if self._chosen(row, table, since_ns)]
            if len(pending) >= _BESIDE_ROWS:
                yield _columns(table, pending)
                pending = []
        if pending:
            yield _columns(table, pending)

    def _chosen(self, row: Any, table: str, since_ns: int | None) -> bool:  # noqa: ANN401 - a row of any table
        return (
            (since_ns is None or row.ingest_ns >= since_ns)
            and (self.end_ns is None or row.ingest_ns < self.end_ns)
            and (self.wanted is None or table in OF_NO_MARKET or row.market_ticker in self.wanted)
        )

    # --- the books --------------------------------------------------------------------------------

    def _read(self, columns: Collection[str]) -> Iterator[Chunk]:
        """A gap has the time of the last good frame and is written when the loss is noticed: it stands behind
        later rows. Such gaps are looked for first, and then come where they belong."""
        until, gaps = self._late_gaps(columns)
        streams = [Stream(0, lambda: self._written(columns, until))]
        if gaps is not None:
            streams.append(Stream(int(gaps.ingest_ns[0]), lambda: iter([gaps])))
        yield from merge(streams, join)

    def _late_gaps(self, columns: Collection[str]) -> tuple[int, Chunk | None]:
        """The number behind the last batch, and the gaps that are earlier than a batch before theirs."""
        until = last_ns = 0
        found: list[Chunk] = []
        for entry in self._entries():
            until = entry.end
            chunk = self._chunk(entry, columns)
            if chunk is None:
                continue
            late = _late(chunk, last_ns)
            if self.end_ns is not None:
                late &= chunk.ingest_ns < self.end_ns
            if late.any():
                found.append(chunk.take(late))
            last_ns = max(last_ns, int(chunk.ingest_ns.max()))
        return until, in_order(join(found), 0) if found else None

    def _written(self, columns: Collection[str], until: int) -> Iterator[Chunk]:
        """All rows but late gaps, of the batches before ``until``."""
        pending: list[Chunk] = []
        rows = last_ns = 0
        for entry in self._entries():
            if entry.end > until:
                break
            chunk = self._chunk(entry, columns)
            if chunk is None:
                continue
            late = _late(chunk, last_ns)
            if late.any():
                chunk = chunk.take(~late)
                if not len(chunk):
                    continue
            chunk = in_order(chunk, last_ns)
            last_ns = int(chunk.ingest_ns[-1])
            over = False
            if self.end_ns is not None and int(chunk.ingest_ns[-1]) >= self.end_ns:
                over = True
                chunk = chunk.slice(0, int(np.searchsorted(chunk.ingest_ns, self.end_ns)))
            pending.append(chunk)
            rows += len(chunk)
            if over:
                break
            if rows >= _CHUNK_ROWS:
                yield join(pending)
                pending, rows = [], 0
        if rows:
            yield join(pending)

    def _entries(self) -> Iterator[Entry]:
        try:
            found = segments.find(self._directory)
        except OSError as error:
            raise ReplayError(
                f"the journal cannot be read: {error.strerror or error}", self._directory
            ) from error
        state = ReadState()
        seq: int | None = None
        for segment in found:
            if seq is None and beginning(segment.path) is None:
                continue  # whose rows they are stands at the beginning, and nobody has said it yet
            try:
                data = memoryview(segment.path.read_bytes())
            except FileNotFoundError:
                continue  # every store has it: its recorder has removed it meanwhile
            except OSError as error:
                raise ReplayError(f"cannot be read: {error.strerror or error}", segment.path) from error
            for _, header, payload in scan(data):
                if seq is not None and header.seq > seq:
                    yield state.lost(seq, header.seq, "batches are damaged")
                    seq = header.seq
                try:
                    entry = state.apply(header, payload)
                except DamagedError:
                    continue  # if it was a batch, the next number shows it
                if header.kind == BATCH and entry is not None:
                    yield entry
                    seq = entry.end
                elif seq is None:
                    seq = header.seq

    def _chunk(self, entry: Entry, columns: Collection[str]) -> Chunk | None:
        """The rows of an entry, copied: the entry's memory is that of its whole segment."""
        if entry.events is None or not entry.rows:
            return None
        stored = arrays(entry.events)
        assert stored is not None  # noqa: S101 - there are rows
        numbers = np.fromiter(map(self.number, entry.names.tickers), np.int32, len(entry.names.tickers))
        found = {name: stored[name].copy() for name in columns if name != "market_ix"}
        found["market_ix"] = numbers[stored["market_ix"]]
        chunk = make_chunk(found)
        unwanted = chunk.market_ix < 0
        if unwanted.any():
            chunk = chunk.take(~unwanted)
        return chunk if len(chunk) else None


def _late(chunk: Chunk, last_ns: int) -> NDArray[np.bool_]:
    """Which rows belong before a time by more than a handover explains."""
    return chunk.ingest_ns < last_ns - HANDOVER_NS


def _columns(table: str, rows: list[Any]) -> pa.RecordBatch:
    if table == "raw":
        return raw_batch((frame.ingest_ns, frame.conn_id, frame.channel, frame.payload) for frame in rows)
    return arrow(table, rows)
