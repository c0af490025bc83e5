"""One class for the live market, the simulator and a replay: callbacks for what happens to books, and beside
them.

``Strategy`` is the base. A replay drives it with recorded rows; live, ``Recorder.attach`` drives it with the
rows that the recorder has just written, through the same code, so that it sees the same events with the same
books in both, and trades, tickers and announcements between them in the same order. Not here: that order
(``interleave``), orders, fills.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast._replay import BookTable, EventReader, Rows, open_frame
from kalshi_fast.interleave import Teller, interleave, order

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kalshi_fast._columns import EventColumns
    from kalshi_fast._replay import Event
    from kalshi_fast.batch import RawFrame
    from kalshi_fast.channels.reference_rows import ReferenceRow
    from kalshi_fast.channels.rows import LifecycleRow, TickerRow, TradeRow
    from kalshi_fast.interleave import ChannelRow

log = logging.getLogger("kalshi_fast.strategy")

_COLUMNS = ("type", "market_ix", "side", "price_e4", "qty_e2", "ingest_ns", "ts_us", "conn_id", "sid", "seq")


class Strategy:
    """Override what you want to know; what is not overridden costs nothing.

    The event is one object that is used over and over, and ``event.book`` changes with the next event:
    ``event.copy()`` is what may be kept. ``event.known`` says whether the book can be relied upon.
    """

    def on_snapshot(self, event: Event) -> None:
        """A market's whole book has come, and is known."""

    def on_delta(self, event: Event) -> None:
        """One level has changed by ``event.qty_e2``; of an unknown book nothing has."""

    def on_gap(self, event: Event) -> None:
        """From here on the book is unknown, until the next snapshot."""

    def on_book(self, event: Event) -> None:
        """Behind each of those before that leaves a known book."""

    def on_trade(self, trade: TradeRow, /) -> None:
        """Somebody has traded; each trade once, also one that was missed and came by REST later."""

    def on_ticker(self, ticker: TickerRow, /) -> None:
        """What the ticker channel says of a market."""

    def on_lifecycle(self, announcement: LifecycleRow, /) -> None:
        """A market or an event was created, has changed, was determined or settled."""

    def on_reference(self, price: ReferenceRow, /) -> None:
        """A value of an index or an underlying (``REFERENCE``), each once."""

    def on_raw(self, frame: RawFrame, /) -> None:
        """A frame of a channel that is kept as it comes (``RAW``)."""


def callbacks(strategy: Strategy) -> tuple[Callable[[Event], None] | None, ...]:
    """The four callbacks for books; None for those that are not overridden."""
    names = ("on_snapshot", "on_delta", "on_gap", "on_book")
    return tuple(
        None if getattr(type(strategy), name) is getattr(Strategy, name) else getattr(strategy, name)
        for name in names
    )


_CHANNELS: Final = {
    "market_lifecycle": "on_lifecycle",
    "reference_prices": "on_reference",
    "trades": "on_trade",
    "tickers": "on_ticker",
    "raw": "on_raw",
}


def channel_callbacks(strategy: Strategy) -> dict[str, Callable[..., None]]:
    """The callbacks for other channels that are overridden, by the name of the table."""
    return {
        table: getattr(strategy, name)
        for table, name in _CHANNELS.items()
        if getattr(type(strategy), name) is not getattr(Strategy, name)
    }


class Driver:
    """``Driver(strategy, tickers)``: rows as a recorder writes them, in, callbacks out.

    The books are its own, made of the rows alone. A strategy that raises is reported and not called again: a
    recording goes on without it.
    """

    def __init__(self, strategy: Strategy, tickers: list[str]) -> None:
        self.error: Exception | None = None
        self.events = 0
        self.table = BookTable()
        self._callbacks = callbacks(strategy)
        self._teller = Teller(channel_callbacks(strategy))
        self._wanted = frozenset(channel_callbacks(strategy))
        self._beside: list[ChannelRow] = []  # not told of yet
        self._tickers = tickers
        self._seen = 0  # rows of the present buffer that have been dealt with
        self._open: dict[str, NDArray[Any]] | None = None  # a snapshot whose end may not be written yet

    def keep(self, row: ChannelRow) -> None:
        """A row of another channel has been written: it is told of with the next ``look``."""
        if row.table in self._wanted and self.error is None:
            self._beside.append(row)

    def look(self, columns: EventColumns, *, sealed: bool, whole: bool) -> None:
        """Deals with the new rows of a buffer. ``sealed``: the next call is about another one; ``whole``: the
        last row is the last of its frame, for certain, and of its read."""
        first, self._seen = self._seen, 0 if sealed else columns.n
        if self.error is not None:
            return
        if first == columns.n and not (whole and self._open) and not self._beside:
            return
        arrays = {name: columns.arrays[name][first : columns.n] for name in _COLUMNS}
        if self._open is not None:
            arrays = {name: np.concatenate([self._open[name], arrays[name]]) for name in _COLUMNS}
            self._open = None
        if not whole:
            stop = open_frame(arrays["type"], arrays["market_ix"])
            if stop < len(arrays["type"]):
                self._open = {name: array[stop:].copy() for name, array in arrays.items()}
                arrays = {name: array[:stop] for name, array in arrays.items()}
        beside = self._ready(columns, whole=whole) if self._beside else []
        if not len(arrays["type"]) and not beside:
            return
        rows = iter([Rows(**arrays)])
        told = self._teller.told(interleave(rows, beside)) if beside else rows
        try:
            self.events += EventReader(self.table, self._tickers, told).drive(*self._callbacks)
        except Exception as error:
            self.error = error
            self._beside.clear()
            log.exception("the strategy failed and is not called any more; recording goes on")

    def _ready(self, columns: EventColumns, *, whole: bool) -> list[ChannelRow]:
        """What can be told of now, in order. A read that goes on may bring more of its own receive time,
        which comes first; what was received before that read is complete."""
        ready, self._beside = self._beside, []
        if not whole:
            read_ns = max(row.ingest_ns for row in ready)
            if columns.n:
                read_ns = max(read_ns, int(columns.arrays["ingest_ns"][columns.n - 1]))
            if self._open is not None:
                read_ns = min(read_ns, int(self._open["ingest_ns"][0]))
            self._beside = [row for row in ready if row.ingest_ns >= read_ns]
            ready = [row for row in ready if row.ingest_ns < read_ns]
        return sorted(ready, key=order)
