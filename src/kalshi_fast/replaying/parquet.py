"""Events from Parquet files: only the row groups and columns that are needed, files merged in time order.

Not here: which files, and what their footers say (``files``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from kalshi_fast._columns import CLEAR, GAP
from kalshi_fast.books import HANDOVER_NS
from kalshi_fast.errors import ReplayError, reason
from kalshi_fast.replaying.chunks import Chunk, first_fall, in_order, join, make_chunk
from kalshi_fast.replaying.decoding import chunks_of, table_columns
from kalshi_fast.replaying.files import EventFile, Group, look_at_all, open_footer, warn
from kalshi_fast.replaying.merge import Stream, ahead, merge
from kalshi_fast.replaying.source import Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    import pyarrow.parquet as pq
    from numpy.typing import NDArray

_BLOCK_ROWS: Final = 131_072  # a row group of ours; larger ones of others come in blocks


class ParquetSource(Source):
    """``ParquetSource(paths)``. Raises ReplayError for what is no event file; ``repair`` leaves it out.

    What ``repair`` leaves out it says in the events: every book that was known gets a gap there.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        markets: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        repair: bool = False,
    ) -> None:
        super().__init__(markets=markets, start_ns=start_ns, end_ns=end_ns)
        self._repair = repair
        self.files = look_at_all(paths, repair=repair)
        self.rows = sum(group.rows for file in self.files for group in file.groups if self._wants(group))
        self._doubt = False  # rows have been left out since the last chunk

    def _wants(self, group: Group) -> bool:
        return (self.end_ns is None or group.first_ns < self.end_ns) and group.may_hold(self.wanted)

    def _chunks(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        streams = [
            Stream(first_ns, lambda f=file, g=groups: self._read(f, g, columns))  # type: ignore[misc]
            for file in self.files
            for first_ns, groups in self._runs(file, since_ns)
        ]
        streams.sort(key=lambda stream: stream.first_ns)
        self._doubt = False
        chunks = merge(streams, join)
        return ahead(self._with_gaps(chunks) if self._repair else chunks)

    def _runs(self, file: EventFile, since_ns: int | None) -> Iterator[tuple[int, list[Group]]]:
        """Row groups to be read one after the other. One that begins before another one ends has gaps of an
        earlier time in it (or is out of order, which is found when it is read): it begins another run."""
        if file.damage is not None:
            if self.end_ns is None or file.first_ns < self.end_ns:
                yield file.first_ns, []
            return
        groups = [
            group
            for group in file.groups
            if self._wants(group) and (since_ns is None or group.last_ns >= since_ns)
        ]
        if self._repair and not file.ordered:
            warn(f"{file.path}: its row groups are not in the order of ingest_ts; put in order")
            for group in groups:
                yield group.first_ns, [group]
            return
        run: list[Group] = []
        for group in groups:
            if run and group.first_ns < run[-1].last_ns - HANDOVER_NS:
                yield run[0].first_ns, run
                run = []
            run.append(group)
        if run:
            yield run[0].first_ns, run

    def _read(self, file: EventFile, groups: list[Group], columns: Collection[str]) -> Iterator[Chunk]:
        if file.damage is not None:
            self._doubt = True
            return
        last_ns = groups[0].first_ns
        # No row but a gap is earlier than those of the row groups before it.
        floor_ns = max((g.last_ns for g in file.groups if g.index < groups[0].index), default=last_ns)
        if self._repair:
            floor_ns = last_ns  # what is out of order is put in order
        with open_footer(file.path) as parquet:
            for group in groups:
                try:
                    for chunk in self._group(parquet, file.path, group, columns, last_ns, floor_ns):
                        last_ns = int(chunk.ingest_ns[-1])
                        floor_ns = max(floor_ns, last_ns)
                        if self.end_ns is not None and last_ns >= self.end_ns:
                            stop = int(np.searchsorted(chunk.ingest_ns, self.end_ns))
                            yield chunk.slice(0, stop)
                            return
                        yield chunk
                except ReplayError as error:
                    if not self._repair:
                        raise
                    warn(f"{error}; left out, and every book is unknown from there on")
                    self._doubt = True
                self.read += group.rows

    def _group(
        self,
        parquet: pq.ParquetFile,
        path: Path,
        group: Group,
        columns: Collection[str],
        last_ns: int,
        floor_ns: int,
    ) -> Iterator[Chunk]:
        """The rows of a row group in order, from ``last_ns`` on. Raises ReplayError, also for a row before
        ``floor_ns`` that is no gap."""
        names = table_columns(columns)
        try:
            if group.rows <= 2 * _BLOCK_ROWS:
                tables = iter([parquet.read_row_group(group.index, names)])
            else:
                blocks = parquet.iter_batches(_BLOCK_ROWS, [group.index], names)
                tables = (pa.Table.from_batches([block]) for block in blocks)
            chunks: Iterator[Chunk] = (
                chunk for table in tables for chunk in chunks_of(table, columns, self.number)
            )
            if self._repair:
                chunks = iter(self._in_order(list(chunks), path, group))
            elif group.rows <= 2 * _BLOCK_ROWS and (together := list(chunks)):
                chunks = iter([join(together)])  # gaps may belong anywhere in it
            for chunk in chunks:
                fall = first_fall(chunk, floor_ns)
                if fall is None and int(chunk.ingest_ns.min()) < last_ns - HANDOVER_NS:
                    fall = int(chunk.ingest_ns.argmin())  # a gap that belongs before an earlier block
                if fall is not None:
                    what = f"row {fall}" if fall else "they begin before those of the row group before it"
                    raise ReplayError(
                        f"its rows are not in the order of ingest_ts ({what})", path, group.index
                    )
                ordered = in_order(chunk, last_ns)
                last_ns = int(ordered.ingest_ns[-1])
                floor_ns = max(floor_ns, last_ns)
                yield ordered
        except ReplayError as error:
            raise error if error.path is not None else ReplayError(str(error), path, group.index) from error
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"cannot be read: {reason(error)}", path, group.index) from error

    @staticmethod
    def _in_order(chunks: list[Chunk], path: Path, group: Group) -> list[Chunk]:
        if not chunks:
            return []
        chunk = join(chunks)
        if first_fall(chunk, group.first_ns) is not None:
            warn(f"{path}, row group {group.index}: its rows are not in the order of ingest_ts; put in order")
        return [in_order(chunk, group.first_ns)]

    def _with_gaps(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same, and where rows have been left out a gap for every book that was known."""
        known: NDArray[np.bool_] = np.zeros(0, np.bool_)
        last_ns = 0
        for chunk in chunks:
            if self._doubt:
                self._doubt = False
                yield from _gaps(known, last_ns)
                known[:] = False
            if len(self.tickers) > len(known):
                known = np.concatenate([known, np.zeros(len(self.tickers) - len(known), np.bool_)])
            marks = chunk.type >= CLEAR
            known[chunk.market_ix[marks]] = chunk.type[marks] == CLEAR
            last_ns = int(chunk.ingest_ns[-1])
            yield chunk
        if self._doubt:
            yield from _gaps(known, last_ns)

    def _known_since(self) -> int | None:
        """The earliest of the last clears before the start. Row groups without a clear are not read."""
        try:
            return self._last_clears()
        except ReplayError:
            if not self._repair:
                raise
            return None  # what is damaged is dealt with where it is read in order

    def _last_clears(self) -> int | None:
        start_ns = self.start_ns
        assert start_ns is not None  # noqa: S101 - only then anybody asks
        if any(file.damage is not None for file in self.files):
            return None
        candidates = [
            (group.last_ns, group.index, file)
            for file in self.files
            for group in file.groups
            if group.first_ns < start_ns and group.may_clear and self._wants(group)
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        found: dict[int, int] = {}
        names = ("type", "market_ix", "ingest_ns")
        for last_ns, index, file in candidates:
            complete = self.wanted is not None and len(found) == len(self.wanted)
            if complete and last_ns < min(found.values()):
                break
            group = next(group for group in file.groups if group.index == index)
            with open_footer(file.path) as parquet:
                for chunk in self._group(parquet, file.path, group, names, group.first_ns, group.first_ns):
                    clears = (chunk.type == CLEAR) & (chunk.ingest_ns < start_ns)
                    pairs = zip(
                        chunk.market_ix[clears].tolist(), chunk.ingest_ns[clears].tolist(), strict=True
                    )
                    for market, ns in pairs:
                        found[market] = max(found.get(market, ns), ns)
        return min(found.values(), default=start_ns)


def _gaps(known: NDArray[np.bool_], at_ns: int) -> Iterator[Chunk]:
    markets = np.flatnonzero(known).astype(np.int32)
    if len(markets):
        length = len(markets)
        yield make_chunk(
            {
                "type": np.full(length, GAP, np.int8),
                "market_ix": markets,
                "side": np.zeros(length, np.int8),
                "price_e4": np.zeros(length, np.uint16),
                "qty_e2": np.zeros(length, np.int64),
                "ts_us": np.full(length, at_ns // 1000, np.int64),
                "ingest_ns": np.full(length, at_ns, np.int64),
                "conn_id": np.zeros(length, np.uint64),
                "sid": np.zeros(length, np.uint32),
                "seq": np.zeros(length, np.uint64),
            }
        )
