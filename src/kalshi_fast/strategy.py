"""One class for the live market, the simulator and a replay: callbacks for what happens to books.

``Strategy`` is the base. A replay drives it with recorded rows; live, ``Recorder.attach`` drives it with the
rows that the recorder has just written, through the same code, so that it sees the same events with the same
books in both. Not here: orders, fills.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from kalshi_fast._replay import BookTable, EventReader, Rows, open_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kalshi_fast._columns import EventColumns
    from kalshi_fast._replay import Event

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
        """Behind each of the others that leaves a known book."""


def callbacks(strategy: Strategy) -> tuple[Callable[[Event], None] | None, ...]:
    """The four callbacks; None for those that are not overridden."""
    names = ("on_snapshot", "on_delta", "on_gap", "on_book")
    return tuple(
        None if getattr(type(strategy), name) is getattr(Strategy, name) else getattr(strategy, name)
        for name in names
    )


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
        self._tickers = tickers
        self._seen = 0  # rows of the present buffer that have been dealt with
        self._open: dict[str, NDArray[Any]] | None = None  # a snapshot whose end may not be written yet

    def look(self, columns: EventColumns, *, sealed: bool, whole: bool) -> None:
        """Deals with the new rows of a buffer. ``sealed``: the next call is about another one; ``whole``: the
        last row is the last of its frame, for certain."""
        first, self._seen = self._seen, 0 if sealed else columns.n
        if self.error is not None or (first == columns.n and not (whole and self._open)):
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
        try:
            self.events += EventReader(self.table, self._tickers, [Rows(**arrays)]).drive(*self._callbacks)
        except Exception as error:
            self.error = error
            log.exception("the strategy failed and is not called any more; recording goes on")
