"""The deltas of a recording as columns: what it takes to play, or to pass over, many of them at once.

Not here: snapshots, the order of all events (``recorded``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kalshi_fast._frames import DeltaFrames
from kalshi_fast.simulator.reading import Delta

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kalshi_fast.simulator.reading import Event


def times_json(event: Delta) -> bytes:
    """The JSON of a delta's times, with a leading comma."""
    return b',"ts":"%b"' % event.ts.encode()


class Deltas:
    """``Deltas(events, numbers)``: ``numbers`` are those of the markets."""

    def __init__(self, events: Sequence[Event], numbers: dict[str, int]) -> None:
        deltas = [event for event in events if isinstance(event, Delta)]
        others = [place for place, event in enumerate(events) if not isinstance(event, Delta)]
        self._others = np.array([*others, len(events)], np.int64)
        self._tickers = list(numbers)
        self._market_ix = np.fromiter((numbers[delta.ticker] for delta in deltas), np.int32, len(deltas))
        self._side = np.fromiter((delta.side for delta in deltas), np.int8, len(deltas))
        self._price_e4 = np.fromiter((delta.price_e4 for delta in deltas), np.uint16, len(deltas))
        self._delta_e2 = np.fromiter((delta.delta_e2 for delta in deltas), np.int64, len(deltas))
        times = [times_json(delta) for delta in deltas]
        self._ends = np.cumsum(np.fromiter(map(len, times), np.int64, len(times)))
        self._times = b"".join(times)

    def next_snapshot(self, event: int) -> int:
        """The first event from this one on that is no delta, or how many events there are."""
        return int(self._others[np.searchsorted(self._others, event)])

    def number(self, event: int) -> int:
        """How many deltas there are before an event."""
        return event - int(np.searchsorted(self._others, event))

    def frames(self, heads: list[bytes]) -> DeltaFrames:
        """All of them, to be written as frames."""
        columns = self._market_ix, self._side, self._price_e4, self._delta_e2
        return DeltaFrames(heads, *columns, self._times, self._ends)

    def net(self, first: int, stop: int) -> Iterator[tuple[str, int, int, int]]:
        """What a stretch of deltas comes to: ticker, side, price_e4 and change of every level."""
        market, side = self._market_ix[first:stop].astype(np.int64), self._side[first:stop]
        keys, places = np.unique(
            (market * 2 + side) * 16_384 + self._price_e4[first:stop], return_inverse=True
        )
        changes = np.zeros(len(keys), np.int64)
        np.add.at(changes, places, self._delta_e2[first:stop])
        for key, change in zip(keys.tolist(), changes.tolist(), strict=True):
            if change:
                yield self._tickers[key >> 15], key >> 14 & 1, key & 16_383, change
