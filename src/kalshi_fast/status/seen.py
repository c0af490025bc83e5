"""What the rows say, as the writer process sees them go by: by market, and how long they took.

A few numpy steps a batch, in the process that has the time for it. Only a writer that is asked for it keeps
one. Not here: sending it (``writing``), making sense of it (``state``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kalshi_fast._columns import CLEAR, DELTA, GAP
from kalshi_fast.lags import Lags
from kalshi_fast.status.figures import Histogram, MarketRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kalshi_fast.ring import SealedSlot


class Seen:
    """``add`` every batch; ``changed`` gives markets that had rows since it last gave them, and ``put_back``
    makes it give the last ones again.

    ``to_wire``: from the exchange's time of a delta to its being read from the socket, as the two clocks
    have it; ``to_row``: from there to the journal.
    """

    def __init__(self) -> None:
        self.to_wire = Lags()
        self.to_row = Lags()
        self._events = _grown(None, 64)
        self._gaps = _grown(None, 64)
        self._known = _grown(None, 64)
        self._since_ns = _grown(None, 64)
        self._last_ns = _grown(None, 64)
        self._lag_us = _grown(None, 64)
        self._changed = _grown(None, 64)
        self._given: NDArray[Any] = self._changed[:0]

    def add(self, batch: SealedSlot, now_ns: int) -> None:
        """The events of a batch that is in the journal now. Its memory is not kept."""
        n = batch.events
        if n == 0:
            return
        columns = {name: column[:n] for name, column in batch.event_arrays.items()}
        kinds, markets, ingest_ns = columns["type"], columns["market_ix"], columns["ingest_ns"]
        if batch.names[0] > len(self._events):
            self._grow(2 * batch.names[0])
        self.to_row.add(now_ns - ingest_ns)
        touched, counts = np.unique(markets, return_counts=True)
        self._events[touched] += counts
        self._changed[touched] = 1
        self._last_ns[markets] = ingest_ns  # of several, the last one stays
        deltas = kinds == DELTA
        if deltas.any():
            lags_ns = ingest_ns[deltas] - columns["ts_us"][deltas] * 1000
            self.to_wire.add(lags_ns)
            self._lag_us[markets[deltas]] = lags_ns // 1000
        for at in np.flatnonzero((kinds == CLEAR) | (kinds == GAP)):
            market, known = markets[at], kinds[at] == CLEAR
            self._gaps[market] += not known
            if self._known[market] != known or not self._since_ns[market]:
                self._known[market], self._since_ns[market] = known, ingest_ns[at]

    def _grow(self, size: int) -> None:
        self._events = _grown(self._events, size)
        self._gaps = _grown(self._gaps, size)
        self._known = _grown(self._known, size)
        self._since_ns = _grown(self._since_ns, size)
        self._last_ns = _grown(self._last_ns, size)
        self._lag_us = _grown(self._lag_us, size)
        self._changed = _grown(self._changed, size)

    def put_back(self) -> None:
        """What ``changed`` gave has not arrived."""
        self._changed[self._given] = 1

    def changed(self, tickers: Callable[[int, int], list[str]], most: int) -> list[MarketRow]:
        """Up to so many; ``tickers(start, stop)`` gives their names."""
        self._given = places = np.flatnonzero(self._changed)[:most]
        self._changed[places] = 0
        columns = [
            column[places].tolist()
            for column in (
                self._events,
                self._gaps,
                self._known,
                self._since_ns,
                self._last_ns,
                self._lag_us,
            )
        ]
        return [
            MarketRow(tickers(at, at + 1)[0], events, gaps, known == 1, since_ns, last_ns, lag_us)
            for at, events, gaps, known, since_ns, last_ns, lag_us in zip(
                places.tolist(), *columns, strict=True
            )
        ]


def histogram(lags: Lags) -> Histogram:
    """Its figures as they are told."""
    return Histogram(lags.cumulative(), lags.count, lags.total_ns)


def _grown(old: NDArray[Any] | None, size: int) -> NDArray[Any]:
    new = np.zeros(size, np.int64)
    if old is not None:
        new[: len(old)] = old
    return new
