"""The deltas of a recording as columns: what it takes to play, or to pass over, many of them at once.

Not here: snapshots, the order of all events (``recorded``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from kalshi_fast._decode import rfc3339_us
from kalshi_fast._frames import DeltaFrames
from kalshi_fast.errors import FrameError
from kalshi_fast.simulator.frames import times
from kalshi_fast.simulator.reading import Delta

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kalshi_fast.simulator.reading import Event


def times_json(event: Delta, *, as_recorded: bool) -> bytes:
    """The JSON of a delta's times, with a leading comma: as the exchange writes it today, or ``as_recorded``,
    which a time that cannot be read is in any case."""
    if not as_recorded:
        with suppress(FrameError):
            return times(rfc3339_us(event.ts))
    return b',"ts":"%b"' % event.ts.encode()


class Deltas:
    """``Deltas(events, numbers)``: ``numbers`` are those of the markets. ``old_frames``: see ``frames``."""

    def __init__(self, events: Sequence[Event], numbers: dict[str, int], *, old_frames: bool = False) -> None:
        deltas = [event for event in events if isinstance(event, Delta)]
        others = [place for place, event in enumerate(events) if not isinstance(event, Delta)]
        self._others = np.array([*others, len(events)], np.int64)
        self._tickers = list(numbers)
        self._market_ix = np.fromiter((numbers[delta.ticker] for delta in deltas), np.int32, len(deltas))
        self._side = np.fromiter((delta.side for delta in deltas), np.int8, len(deltas))
        self._price_e4 = np.fromiter((delta.price_e4 for delta in deltas), np.uint16, len(deltas))
        self._delta_e2 = np.fromiter((delta.delta_e2 for delta in deltas), np.int64, len(deltas))
        told = [times_json(delta, as_recorded=old_frames) for delta in deltas]
        self._ends = np.cumsum(np.fromiter(map(len, told), np.int64, len(told)))
        self._times = b"".join(told)
        self._newline = not old_frames

    def next_snapshot(self, event: int) -> int:
        """The first event from this one on that is no delta, or how many events there are."""
        return int(self._others[np.searchsorted(self._others, event)])

    def number(self, event: int) -> int:
        """How many deltas there are before an event."""
        return event - int(np.searchsorted(self._others, event))

    def frames(self, heads: list[bytes]) -> DeltaFrames:
        """All of them, to be written as frames."""
        columns = self._market_ix, self._side, self._price_e4, self._delta_e2
        return DeltaFrames(heads, *columns, self._times, self._ends, newline=self._newline)

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
