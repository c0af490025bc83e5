"""Book events and rows of the other channels in one order, the same live and in a replay.

The order is that of the receive times. What was received at once comes in the order of the channels:
announcements, reference prices, trades, the book, tickers, raw frames (an index before the orders that
follow it, a trade before the change that it made, a ticker behind what it sums up); within a channel as it
was recorded. One exception: ClickHouse does not keep the order of tickers of one read, which have no numbers;
they come from there by ts and market_ticker, as do reference prices of several channels by channel. Not here:
where either comes from.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, TypeAlias

from kalshi_fast._replay import Rows
from kalshi_fast.batch import RawFrame
from kalshi_fast.channels.reference_rows import ReferenceRow
from kalshi_fast.channels.rows import LifecycleRow, TickerRow, TradeRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kalshi_fast._replay import Event, EventReader

ChannelRow: TypeAlias = LifecycleRow | ReferenceRow | TradeRow | TickerRow | RawFrame

# In the order of one receive time.
TABLES: Final = ("market_lifecycle", "reference_prices", "trades", "tickers", "raw")
OF_NO_MARKET: Final = ("reference_prices", "raw")  # all of it belongs to whatever markets are asked for
_BEHIND_BOOK: Final = frozenset({"tickers", "raw"})
_PLACES: Final = {table: place for place, table in enumerate(TABLES)}


def order(row: ChannelRow) -> tuple[int, int]:
    """What rows of several channels are sorted by; equal ones stay as they are."""
    return row.ingest_ns, _PLACES[row.table]


def in_order(streams: Sequence[Iterator[ChannelRow]]) -> Iterator[ChannelRow]:
    """The rows of several channels as one stream."""
    if len(streams) == 1:
        return streams[0]
    return heapq.merge(*streams, key=order)


def interleave(chunks: Iterable[Rows], beside: Iterable[ChannelRow]) -> Iterator[Rows | ChannelRow]:
    """Both in order: rows of the other channels, and between them the book's as they are.

    A book's frame has one receive time, so it is never cut in two.
    """
    others = iter(beside)
    row = next(others, None)
    for rows in chunks:
        at = 0
        while row is not None:
            stop = rows.place(row.ingest_ns, row.table in _BEHIND_BOOK)
            if stop >= rows.n:
                break  # it belongs before a later chunk
            if stop > at:
                yield rows.part(at, stop)
                at = stop
            yield row
            row = next(others, None)
        if at < rows.n:
            yield rows.part(at, rows.n)
    while row is not None:
        yield row
        row = next(others, None)


class Hand:
    """An iterator of ``Rows`` that ends after each that it is given, and goes on with the next."""

    def __init__(self) -> None:
        self.rows: Rows | None = None

    def __iter__(self) -> Hand:
        return self

    def __next__(self) -> Rows:
        rows, self.rows = self.rows, None
        if rows is None:
            raise StopIteration
        return rows


def events(
    reader: EventReader, hand: Hand, mixed: Iterable[Rows | ChannelRow]
) -> Iterator[Event | ChannelRow]:
    """Single events. ``reader`` reads from ``hand``."""
    for one in mixed:
        if isinstance(one, Rows):
            hand.rows = one
            yield from reader
        else:
            yield one


class Teller:
    """``told(mixed)`` are the book's rows, for an ``EventReader`` to drive callbacks with; between them the
    other channels' rows go to theirs. ``count``: how many of those there have been."""

    def __init__(self, callbacks: Mapping[str, Callable[..., None]]) -> None:
        self.count = 0
        self._callbacks = callbacks

    def told(self, mixed: Iterable[Rows | ChannelRow]) -> Iterator[Rows]:
        for one in mixed:
            if isinstance(one, Rows):
                yield one
            else:
                self.count += 1
                callback = self._callbacks.get(one.table)
                if callback is not None:
                    callback(one)
