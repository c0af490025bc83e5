"""Where recorded events come from: one interface over files, databases, journals and captures.

``open_source`` finds out what it is given. A replay that begins at ``start`` begins with every book that was
known then, as a snapshot (a clear row and its levels) received at ``start``: as a subscription made at that
moment would bring it. So no reader ever needs what was before. Not here: each kind's own reading.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from kalshi_fast._replay import BookTable
from kalshi_fast.errors import FieldError, ReplayError
from kalshi_fast.replaying.chunks import ALL_COLUMNS, BOOK_COLUMNS, DTYPES, Chunk, make_chunk
from kalshi_fast.replaying.times import Moment, moment_ns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kalshi_fast.replaying.capture import CaptureSource
    from kalshi_fast.replaying.database import DatabaseSource
    from kalshi_fast.replaying.log import JournalSource

_SEGMENT_SUFFIX: Final = ".journal"
_CAPTURE_SUFFIXES: Final = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")


class Source(ABC):
    """Events of some markets in some stretch of time. May be read several times, one reading at a time.

    ``tickers``: the text of ``market_ix``; it grows while chunks are read. ``start_ns``, ``end_ns``: the
    stretch, the end excluded; None: no bound.
    """

    def __init__(self, *, markets: Iterable[str] | None, start_ns: int | None, end_ns: int | None) -> None:
        self.tickers: list[str] = []
        self.wanted = None if markets is None else frozenset(markets)
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.rows = 0  # how many there are to read in all, as far as that is known
        self.read = 0  # how many of them have been read so far: for a progress bar
        self._numbers: dict[str, int] = {}

    @abstractmethod
    def _chunks(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        """All wanted rows before ``end_ns``, from ``since_ns`` on at the latest, in time order."""

    def _known_since(self) -> int | None:
        """From when on the rows have to be read to know the books at ``start_ns``; None: from the first."""
        return None

    def close(self) -> None:  # noqa: B027 - most kinds have nothing to close between two readings
        """Gives open files and connections back."""

    def number(self, ticker: str) -> int:
        """The ``market_ix`` of a ticker, -1 when it is not wanted."""
        known = self._numbers.get(ticker)
        if known is None:
            if self.wanted is not None and ticker not in self.wanted:
                known = -1
            else:
                known = len(self.tickers)
                self.tickers.append(ticker)
            self._numbers[ticker] = known
        return known

    def find(self, ticker: str) -> int:
        """The ``market_ix`` of a ticker that rows have named, -1 when none has so far."""
        return self._numbers.get(ticker, -1)

    def chunks(self, columns: Collection[str] = ALL_COLUMNS) -> Iterator[Chunk]:
        """The events from ``start`` on, before them the books that were known at ``start``.

        ``columns`` are those that are needed; what it takes to have the books always comes. Raises
        ReplayError.
        """
        columns = [name for name in DTYPES if name in columns or name in BOOK_COLUMNS]
        self.read = 0
        if self.start_ns is None:
            yield from self._chunks(columns, None)
            return
        books = BookTable()
        begun = False
        for chunk in self._chunks(columns, self._known_since()):
            if begun:
                yield chunk
                continue
            first = int(np.searchsorted(chunk.ingest_ns, self.start_ns))
            before = chunk.slice(0, first)
            books.apply(before.type, before.market_ix, before.side, before.price_e4, before.qty_e2)
            if first < len(chunk):
                begun = True
                yield from books_at(books, self.start_ns)
                yield chunk.slice(first, len(chunk))
        if not begun:
            yield from books_at(books, self.start_ns)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def books_at(books: BookTable, at_ns: int) -> Iterator[Chunk]:
    """The known books as snapshots received at ``at_ns``, if there are any. Connection and numbers are 0."""
    columns = books.snapshot_columns()
    length = len(columns["type"])
    if length:
        columns["ingest_ns"] = np.full(length, at_ns, np.int64)
        columns["ts_us"] = np.full(length, at_ns // 1000, np.int64)
        yield make_chunk(columns)


def open_source(
    source: str | Path,
    *,
    markets: Iterable[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    repair: bool = False,
    database: str = "kalshi",
    user: str = "default",
    password: str = "",
) -> Source:
    """Events from ``start`` (included) to ``end`` (excluded) of these markets (None: all).

    ``source``: a directory of Parquet files (PARQUET_DIR or its ``orderbook``), one file, or a pattern; an
    address of ClickHouse (``chdb://DIR``, ``http(s)://HOST:PORT``; the last three arguments are for it); the
    directory of a journal; a capture (``.ndjson``, see ``capture``). ``repair``: what is wrong with a file
    and can be put right is a ReplayWarning instead of a ReplayError.
    """
    start_ns = None if start is None else moment_ns("start", start)
    end_ns = None if end is None else moment_ns("end", end)
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise FieldError("end", end, f"a time not before start ({start})")
    markets = [markets] if isinstance(markets, str) else markets
    other = open_other(
        source,
        markets=markets,
        start_ns=start_ns,
        end_ns=end_ns,
        database=database,
        user=user,
        password=password,
    )
    if other is not None:
        return other
    from kalshi_fast.replaying.files import find_files
    from kalshi_fast.replaying.parquet import ParquetSource

    files = find_files(source, end_ns)
    if not files and not find_files(source):
        raise ReplayError("there are no event files, no journal and no capture there", source)
    return ParquetSource(files, markets=markets, start_ns=start_ns, end_ns=end_ns, repair=repair)


def open_other(
    source: str | Path,
    *,
    markets: Iterable[str] | None,
    start_ns: int | None,
    end_ns: int | None,
    database: str = "kalshi",
    user: str = "default",
    password: str = "",
) -> DatabaseSource | JournalSource | CaptureSource | None:
    """A database, a journal or a capture; None: it must be files of a recording."""
    if isinstance(source, str) and source.startswith(("chdb://", "http://", "https://")):
        from kalshi_fast.replaying.database import DatabaseSource

        return DatabaseSource(
            source,
            markets=markets,
            start_ns=start_ns,
            end_ns=end_ns,
            database=database,
            user=user,
            password=password,
        )
    path = Path(source)
    if path.is_dir() and any(path.glob(f"*{_SEGMENT_SUFFIX}")):
        from kalshi_fast.replaying.log import JournalSource

        return JournalSource(path, markets=markets, start_ns=start_ns, end_ns=end_ns)
    if path.name.endswith(_CAPTURE_SUFFIXES):
        from kalshi_fast.replaying.capture import CaptureSource

        return CaptureSource(path, markets=markets, start_ns=start_ns, end_ns=end_ns)
    return None
