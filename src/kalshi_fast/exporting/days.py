"""Replayed events as depth updates, a market and a date at a time: what every form of export is made of.

A date (UTC, by receive time) begins with the whole book as it stands, if it is known, so that its file can be
used alone; read one after another, the files of a market give the book of the whole time. Rows stand in the
order of the sequence, and both times never fall in it, because an update is the size that its level has
afterwards: in another order the book would be another. Memory is bounded: at MAX_ROWS updates the largest
dates are handed out in parts. Not here: forms (``hft``, ``nautilus``), the compiled part (``_depth``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from kalshi_fast._columns import DELTA
from kalshi_fast._depth import UPDATE, DepthUpdates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kalshi_fast.replaying.chunks import Chunk
    from kalshi_fast.replaying.source import Source

    Ints: TypeAlias = NDArray[np.int64]

DAY_NS: Final = 86_400_000_000_000
MAX_ROWS: Final = 4_000_000
COLUMNS: Final = ("type", "market_ix", "side", "price_e4", "qty_e2", "ts_us", "ingest_ns", "seq")
_NO_TIME: Final = np.iinfo(np.int64).min


@dataclass(slots=True)
class MarketDay:
    """Depth updates of one market and date; times are ns since 1970. ``part`` counts from 0.

    ``raised``: rows whose exchange time was before that of the row before; ``early``: rows that the exchange
    dates after their receipt (clocks differ). Both have been put right: see ``exchange_times``.
    """

    ticker: str
    date: str
    part: int
    last: bool  # of the parts of its date
    updates: NDArray[Any]  # of UPDATE
    exchange_ns: Ints
    receive_ns: Ints
    seq: NDArray[np.uint64]
    raised: int = 0
    early: int = 0
    early_max_ns: int = 0

    def __len__(self) -> int:
        return len(self.updates)


@dataclass(slots=True)
class Totals:
    """Over a whole export."""

    events: int = 0
    crossed: int = 0
    unknown: int = 0
    faults: int = 0


@dataclass(slots=True)
class _Market:
    ticker: str
    parts: list[tuple[NDArray[Any], Ints, Ints, NDArray[np.uint64]]] = field(default_factory=list)
    rows: int = 0
    events: int = 0  # updates with a cause in this date
    number: int = 0  # of the next part
    exchange_ns: int = 0  # of the last row handed out


def market_days(
    source: Source,
    totals: Totals,
    *,
    max_rows: int = MAX_ROWS,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[MarketDay]:
    """All markets of a source, date by date, markets in their order of appearance."""
    depth = DepthUpdates()
    markets: list[_Market] = []
    held = 0
    day: int | None = None
    for chunk in source.chunks(COLUMNS):
        for ix in range(len(markets), len(source.tickers)):
            markets.append(_Market(source.tickers[ix]))
            depth.want(ix)
        for first, stop, of_day in _by_day(chunk):
            if day is not None and of_day != day:
                yield from _finished(markets, day)
            if of_day != day:
                held = 0 if day is None else _begin_day(depth, markets, of_day)
                day = of_day
            held += _take(depth, markets, chunk.slice(first, stop))
            while held > max_rows:
                # A market of which nothing has happened yet in this date may have no file of it.
                busy = [market for market in markets if market.events and market.rows]
                if not busy:
                    break
                largest = max(busy, key=lambda market: market.rows)
                held -= largest.rows
                yield _handed_out(largest, of_day, last=False)
        totals.events += len(chunk)
        progress()
    if day is not None:
        yield from _finished(markets, day)
    totals.crossed, totals.unknown, totals.faults = depth.crossed, depth.unknown, depth.faults


def _by_day(chunk: Chunk) -> Iterator[tuple[int, int, int]]:
    days = chunk.ingest_ns // DAY_NS
    for first, stop in runs(days):
        yield first, stop, int(days[first])


def runs(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """First and stop of every stretch of equal neighbours."""
    if len(values):
        yield from pairwise([0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)])


def _begin_day(depth: DepthUpdates, markets: list[_Market], day: int) -> int:
    """The books as they stand at midnight."""
    held = 0
    for ix, market in enumerate(markets):
        updates = depth.levels(ix)
        at = np.full(len(updates), day * DAY_NS, np.int64)
        if len(updates):
            market.parts = [(updates, np.full(len(updates), _NO_TIME), at, np.zeros(len(updates), np.uint64))]
            market.rows = len(updates)
            held += market.rows
    return held


def _take(depth: DepthUpdates, markets: list[_Market], chunk: Chunk) -> int:
    updates = depth.apply(chunk.type, chunk.market_ix, chunk.side, chunk.price_e4, chunk.qty_e2)
    if not len(updates):
        return 0
    rows = updates["row"]
    exchange_ns = np.where(chunk.type[rows] == DELTA, chunk.ts_us[rows] * 1000, _NO_TIME)
    receive_ns, seq = chunk.ingest_ns[rows], chunk.seq[rows]
    order = np.argsort(updates["market_ix"], kind="stable")
    of_market = updates["market_ix"][order]
    for first, stop in runs(of_market):
        places = order[first:stop]
        market = markets[int(of_market[first])]
        market.parts.append((updates[places], exchange_ns[places], receive_ns[places], seq[places]))
        market.rows += len(places)
        market.events += len(places)
    return len(updates)


def _finished(markets: list[_Market], day: int) -> Iterator[MarketDay]:
    for market in markets:
        if market.events:
            yield _handed_out(market, day, last=True)
        market.parts, market.rows, market.events, market.number = [], 0, 0, 0


def _handed_out(market: _Market, day: int, *, last: bool) -> MarketDay:
    # After a part that was handed out early there may be no more: the last one is empty then.
    none = np.empty(0, np.int64)
    market.parts.append((np.empty(0, UPDATE), none, none, np.empty(0, np.uint64)))
    updates = np.concatenate([part[0] for part in market.parts])
    told_ns, receive_ns = (np.concatenate([part[n] for part in market.parts]) for n in (1, 2))
    exchange_ns, raised, early = exchange_times(told_ns, receive_ns, market.exchange_ns)
    done = MarketDay(
        ticker=market.ticker,
        date=f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}",
        part=market.number,
        last=last,
        updates=updates,
        exchange_ns=exchange_ns,
        receive_ns=receive_ns,
        seq=np.concatenate([part[3] for part in market.parts]),
        raised=raised,
        early=int(np.count_nonzero(early)),
        early_max_ns=int(early.max(initial=0)),
    )
    if len(updates):
        market.exchange_ns = int(exchange_ns[-1])
    market.parts, market.rows = [], 0
    market.number += 1
    return done


def exchange_times(told_ns: Ints, receive_ns: Ints, before_ns: int) -> tuple[Ints, int, Ints]:
    """When the exchange did what the rows tell, in the order of the sequence: never after the receipt, never
    before the row before.

    A snapshot has no time of the exchange: it is from before the next change, and has that one's time when it
    is the earlier one. Returns the times, how many told times were raised, and by how much each told time was
    after the receipt.
    """
    told = told_ns != _NO_TIME
    early = np.where(told, np.maximum(told_ns - receive_ns, 0), 0)
    known = np.minimum(np.where(told, told_ns, receive_ns), receive_ns)
    # The next told time, for rows without one.
    places = np.where(told, np.arange(len(told)), len(told))
    following = np.minimum.accumulate(places[::-1])[::-1]
    ahead = np.append(known, np.iinfo(np.int64).max)[following]
    wanted = np.minimum(known, ahead)
    times = np.maximum.accumulate(np.maximum(wanted, before_ns))
    return times, int(np.count_nonzero(told & (times > wanted))), early
