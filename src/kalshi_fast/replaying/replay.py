"""``kalshi_fast.replay``: a recorded market, to be run through in whatever way suits.

A ``Replay`` is a description; each of its methods reads the recording anew, from the first event to the last,
holding a few chunks of it in memory. Not here: where events come from (``source``), stepping (``run``).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self, overload

import pyarrow as pa

from kalshi_fast._features import Bars, Collector, Features
from kalshi_fast._replay import BookTable, EventReader, Rows, open_frame
from kalshi_fast.errors import FieldError
from kalshi_fast.interleave import Hand, Teller, interleave
from kalshi_fast.interleave import events as single_events
from kalshi_fast.replaying.beside import TABLE_SCHEMAS, BesideReader, check_tables, open_beside
from kalshi_fast.replaying.chunks import ALL_COLUMNS, BOOK_COLUMNS, Chunk, is_absent, join
from kalshi_fast.replaying.files import warn
from kalshi_fast.replaying.run import Run
from kalshi_fast.replaying.source import Source, open_source
from kalshi_fast.replaying.tables import Tables, record_batch
from kalshi_fast.replaying.times import Duration, Moment, duration_ns, moment_ns
from kalshi_fast.strategy import Strategy, callbacks, channel_callbacks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kalshi_fast._book import OrderBook
    from kalshi_fast._replay import Event
    from kalshi_fast.interleave import ChannelRow

FEATURE_ROWS: Final = 65_536
_MARKET: Final = pa.dictionary(pa.int32(), pa.string())
_TIME: Final = pa.timestamp("ns", "UTC")
_LOOK: Final = (
    pa.field("market", _MARKET, nullable=False),
    pa.field("at", _TIME, nullable=False),
    pa.field("known", pa.bool_(), nullable=False),
)
_BEST: Final = (
    pa.field("bid_price_e4", pa.int32()),
    pa.field("bid_qty_e2", pa.int64(), nullable=False),
    pa.field("ask_price_e4", pa.int32()),
    pa.field("ask_qty_e2", pa.int64(), nullable=False),
)
_MIDS: Final = (
    pa.field("mid_half_e4", pa.int32()),
    pa.field("microprice_e8", pa.int64()),
    pa.field("imbalance", pa.float64(), nullable=False),
)
BBO_SCHEMA: Final = pa.schema([*_LOOK, *_BEST, *_MIDS])
BARS_SCHEMA: Final = pa.schema(
    [
        pa.field("market", _MARKET, nullable=False),
        pa.field("since", _TIME, nullable=False),
        *(
            pa.field(name, pa.int32())
            for name in (
                *("open_half_e4", "high_half_e4", "low_half_e4", "close_half_e4"),
                *("spread_open_e4", "spread_high_e4", "spread_low_e4", "spread_close_e4"),
            )
        ),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("known_ns", "quoted_ns", "events")),
    ]
)


def snapshot_schema(depth: int) -> pa.Schema:
    """Of the tables that ``Replay.snapshots`` makes: levels are lists of so many values."""
    levels = [pa.field(f.name, pa.list_(f.type, depth), nullable=False) for f in _BEST]
    return pa.schema([*_LOOK, *levels, *_MIDS])


class Replay:
    """What ``kalshi_fast.replay`` returns. Raises ReplayError, ConfigError or FieldError when it is used."""

    def __init__(
        self,
        source: str | Path,
        *,
        markets: Iterable[str] | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        **options: Any,  # noqa: ANN401 - as open_source has them
    ) -> None:
        self._source = source
        self._markets = [markets] if isinstance(markets, str) else None if markets is None else list(markets)
        self._start_ns = None if start is None else moment_ns("start", start)
        self._end_ns = None if end is None else moment_ns("end", end)
        self._options = options

    def open(self) -> Source:
        """The events themselves: ``with replay.open() as source: for chunk in source.chunks(): …``."""
        return self._open(self._start_ns, self._end_ns)

    def _open(self, start_ns: int | None, end_ns: int | None) -> Source:
        return open_source(self._source, markets=self._markets, start=start_ns, end=end_ns, **self._options)

    # --- events -----------------------------------------------------------------------------------

    def run(self) -> Run:
        """The books, to be moved on step by step: to a moment, or by so many events."""
        source = self.open()
        return Run(source, whole_frames(source.chunks(BOOK_COLUMNS)))

    @overload
    def events(self, columns: Collection[str] = ..., *, channels: tuple[()] = ...) -> Iterator[Event]: ...

    @overload
    def events(
        self, columns: Collection[str] = ..., *, channels: Collection[str]
    ) -> Iterator[Event | ChannelRow]: ...

    def events(
        self, columns: Collection[str] = ALL_COLUMNS, *, channels: Collection[str] = ()
    ) -> Iterator[Event] | Iterator[Event | ChannelRow]:
        """Every event with the market's book behind it. It is one object over and over: see ``Event``.

        ``columns``: those that the caller wants to see; without ``conn_id``, ``sid``, ``seq`` and ``ts_us``
        files are read in half the time. ``channels``: tables of the other channels whose rows come too, each
        where it belongs in time (see ``interleave``).
        """
        tables = check_tables(channels)
        return self._mixed(columns, tables) if tables else self._events(columns)

    def _events(self, columns: Collection[str]) -> Iterator[Event]:
        with self.open() as source:
            yield from EventReader(BookTable(), source.tickers, whole_frames(source.chunks(columns)))

    def _mixed(self, columns: Collection[str], tables: list[str]) -> Iterator[Event | ChannelRow]:
        with self.open() as source, self._beside() as others:
            hand = Hand()
            reader = EventReader(BookTable(), source.tickers, hand)
            mixed = interleave(whole_frames(source.chunks(columns)), others.rows(tables))
            yield from single_events(reader, hand, mixed)

    def rows(self, *channels: str) -> Iterator[ChannelRow]:
        """The rows of these tables (``trades``, ``tickers``, ``market_lifecycle``, ``reference_prices``,
        ``raw``; none named: all that are recorded), typed and in order, without the books."""
        tables = check_tables(channels)
        with self._beside() as others:
            yield from others.rows(tables or others.there())

    def drive(self, strategy: Strategy) -> int:
        """Calls the strategy with every event, as a live recording would; returns how many there were.

        A channel that it has a callback for and that is not recorded is a ReplayWarning.
        """
        wanted = channel_callbacks(strategy)
        with ExitStack() as stack:
            source = stack.enter_context(self.open())
            chunks: Iterator[Rows] = whole_frames(source.chunks())
            teller = Teller(wanted)
            if wanted:
                others = stack.enter_context(self._beside())
                there = [table for table in others.there() if table in wanted]
                for table in wanted:
                    if table not in there:
                        warn(
                            f"{self._source}: no {table} are recorded there: the strategy is not told of any"
                        )
                chunks = teller.told(interleave(chunks, others.rows(there)))
            reader = EventReader(BookTable(), source.tickers, chunks)
            return reader.drive(*callbacks(strategy)) + teller.count

    def tables(self) -> list[str]:
        """The tables of other channels that are recorded, if only without a row."""
        with self._beside() as others:
            return others.there()

    def within(self, start_ns: int, end_ns: int) -> Replay:
        """The part of it that lies in this stretch, too."""
        start_ns = start_ns if self._start_ns is None else max(start_ns, self._start_ns)
        end_ns = end_ns if self._end_ns is None else min(end_ns, self._end_ns)
        return Replay(
            self._source,
            markets=self._markets,
            start=start_ns,
            end=max(start_ns, end_ns),
            **self._options,
        )

    def _beside(self) -> BesideReader:
        return open_beside(
            self._source,
            markets=self._markets,
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            **self._options,
        )

    # --- features ---------------------------------------------------------------------------------

    def features(
        self,
        *,
        events: int | None = None,
        every: Duration | None = None,
        depth: int = 1,
        rows: int = FEATURE_ROWS,
    ) -> Iterator[tuple[list[str], dict[str, NDArray[Any]]]]:
        """Tickers and arrays (see ``Features``), block by block of up to so many rows.

        ``events=n``: the market of every n-th event, behind it. ``every="1s"``: all known books at every
        whole second, from ``start`` (else the first event) to ``end`` (else the last). Neither: whenever the
        best prices of a market or their sizes change, or whether its book is known.
        """
        if events is not None and every is not None:
            raise FieldError("every", every, "nothing when events is given")
        if events is not None and events < 1:
            raise FieldError("events", events, "1 or more")
        every_ns = 0 if every is None else duration_ns("every", every)
        with self.open() as source:
            for block in self._collect(source, events, every_ns, depth, rows):
                yield source.tickers, block.filled()

    def _collect(
        self, source: Source, events: int | None, every_ns: int, depth: int, capacity: int
    ) -> Iterator[Features]:
        collector = Collector(BookTable(), Features(capacity, depth))
        last_ns: int | None = None
        for chunk in whole_chunks(source.chunks(BOOK_COLUMNS)):
            if last_ns is None and every_ns:
                first_ns = int(chunk.ingest_ns[0]) if self._start_ns is None else self._start_ns
                collector.next_ns = -(-first_ns // every_ns) * every_ns
            last_ns = int(chunk.ingest_ns[-1])
            rows, at = rows_of(chunk), 0
            while True:
                if every_ns:
                    at = collector.take_moments(rows, at, every_ns)
                elif events is not None:
                    at = collector.take_frames(rows, at, events)
                else:
                    at = collector.take_changes(rows, at)
                if not collector.features.full:
                    break
                yield collector.features
                collector.refill(Features(capacity, depth))
        if every_ns and last_ns is not None:
            until_ns = last_ns if self._end_ns is None else self._end_ns - 1
            while not collector.take_rest(every_ns, until_ns):
                yield collector.features
                collector.refill(Features(capacity, depth))
        if collector.features.n:
            yield collector.features

    # --- tables -----------------------------------------------------------------------------------

    def book_at(self, moment: Moment) -> dict[str, OrderBook]:
        """The books that were known when everything received until then (that included) had been applied."""
        at_ns = moment_ns("moment", moment)
        table = BookTable()
        with self._open(at_ns + 1, at_ns + 1) as source:
            for chunk in source.chunks(BOOK_COLUMNS):
                table.apply(chunk.type, chunk.market_ix, chunk.side, chunk.price_e4, chunk.qty_e2)
            books = zip(source.tickers, table.books, strict=False)
            return {ticker: book for ticker, book in books if not book.stale}

    def bbo(self) -> Tables:
        """Best bid and ask of the yes side, sizes, mid, microprice: a row whenever one of them changes."""
        return Tables(BBO_SCHEMA, lambda: self._looks(BBO_SCHEMA, 0, 1))

    def snapshots(self, every: Duration, *, depth: int = 10) -> Tables:
        """The first ``depth`` levels of every known book at every whole ``every``; a level there is not has
        price -1 and size 0."""
        every_ns, schema = duration_ns("every", every), snapshot_schema(depth)
        return Tables(schema, lambda: self._looks(schema, every_ns, depth))

    def _looks(self, schema: pa.Schema, every_ns: int, depth: int) -> Iterator[pa.RecordBatch]:
        capacity = max(1, FEATURE_ROWS // depth)
        with self.open() as source:
            for block in self._collect(source, None, every_ns, depth, capacity):
                columns = block.filled()
                for name in ("bid_price_e4", "bid_qty_e2", "ask_price_e4", "ask_qty_e2"):
                    if schema is BBO_SCHEMA:
                        columns[name] = columns[name][:, 0]
                yield record_batch(schema, columns, source.tickers)

    def bars(self, every: Duration) -> Tables:
        """Open, high, low and close of mid and spread, and how long the book was known and quoted, for each
        stretch of ``every`` (from whole ones of it on) in which a market was known or had an event."""
        every_ns = duration_ns("every", every)
        return Tables(BARS_SCHEMA, lambda: self._bars(every_ns))

    def _bars(self, every_ns: int) -> Iterator[pa.RecordBatch]:
        with self.open() as source:
            bars: Bars | None = None
            last_ns = 0
            for chunk in whole_chunks(source.chunks(BOOK_COLUMNS)):
                if bars is None:
                    first_ns = int(chunk.ingest_ns[0]) if self._start_ns is None else self._start_ns
                    bars = Bars(BookTable(), every_ns, first_ns // every_ns * every_ns)
                last_ns = int(chunk.ingest_ns[-1])
                for bar in bars.take(rows_of(chunk)):
                    yield record_batch(BARS_SCHEMA, bar, source.tickers)
            if bars is not None:
                for bar in bars.finish(last_ns + 1 if self._end_ns is None else self._end_ns):
                    yield record_batch(BARS_SCHEMA, bar, source.tickers)

    def trades(self) -> Tables:
        """The trades, each once. Raises ReplayError where none are recorded, when it is read."""
        return self._table("trades")

    def tickers(self) -> Tables:
        """What the ticker channel has said; a value that the exchange left out is null."""
        return self._table("tickers")

    def lifecycle(self) -> Tables:
        """Announcements of markets and events; ``body`` is their JSON."""
        return self._table("market_lifecycle")

    def reference(self) -> Tables:
        """Reference prices of all indices and underlyings; what the exchange left out is null."""
        return self._table("reference_prices")

    def raw(self) -> Tables:
        """Frames that were kept as they came, of all markets."""
        return self._table("raw")

    def _table(self, table: str) -> Tables:
        def read() -> Iterator[pa.RecordBatch]:
            with self._beside() as others:
                yield from others.shown(table)

        return Tables(TABLE_SCHEMAS[table], read)

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between two readings."""


def replay(
    source: str | Path,
    *,
    markets: Iterable[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    **options: Any,  # noqa: ANN401
) -> Replay:
    """The recorded events of these markets (None: all) from ``start`` (included) to ``end`` (excluded).

    ``source`` and ``options`` (``repair``, ``database``, ``user``, ``password``) are those of
    ``replaying.source.open_source``. With a start, the replay begins with the books that were known then.
    """
    return Replay(source, markets=markets, start=start, end=end, **options)


def whole_chunks(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same rows, in chunks that end with whole frames."""
    held: Chunk | None = None
    for one in chunks:
        chunk = one if held is None else join([held, one])
        stop = open_frame(chunk.type, chunk.market_ix)
        held = chunk.slice(stop, len(chunk)) if stop < len(chunk) else None
        if stop:
            yield chunk.slice(0, stop)
    if held is not None:
        yield held


def rows_of(chunk: Chunk) -> Rows:
    """The columns of a chunk as the compiled readers want them."""
    return Rows(**{name: column for name, column in chunk.columns().items() if not is_absent(column)})


def whole_frames(chunks: Iterable[Chunk]) -> Iterator[Rows]:
    """``whole_chunks`` for the compiled readers."""
    for chunk in whole_chunks(chunks):
        yield rows_of(chunk)
