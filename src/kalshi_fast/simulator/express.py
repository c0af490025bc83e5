"""Long stretches of a recording at once, for connections with which nothing is wrong.

What goes out is byte for byte what the exchange's own way, change by change, would send; it is taken where no
fault, rate or checkpoint can come between two changes. Not here: the bytes of the frames (``_frames``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kalshi_fast.simulator.subscription import BOOKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.recorded import RecordedMarkets
    from kalshi_fast.simulator.subscription import Subscription


@dataclass(slots=True)
class _Route:
    """What one connection carries."""

    client: Client
    subscriptions: list[Subscription]
    slot_of_market: NDArray[np.int32]
    sids: NDArray[np.int64]
    yes_scale: NDArray[np.int8]


class Express:
    """``Express(exchange, source)``: ``play`` as far as it goes."""

    def __init__(self, exchange: Exchange, source: RecordedMarkets) -> None:
        self._exchange = exchange
        self._source = source
        self._frames = source.delta_frames()  # now, not when the play has begun
        self._routes: list[_Route] | None = []
        self._carried = -1

    def play(self, most: int) -> int:
        """Plays up to so many deltas and says how many; 0: what comes next has to go the other way."""
        source, exchange = self._source, self._exchange
        first, stop = source.stretch(most)
        if first == stop or any(client.link is not None for client in exchange.clients):
            return 0
        if self._carried != exchange.carried:
            self._carried = exchange.carried
            self._routes = self._find_routes()
        if self._routes is None:
            return 0
        number = source.delta_number(first)
        for route in self._routes:
            seqs = np.array([subscription.seq for subscription in route.subscriptions], np.int64)
            sent, frames = self._frames.write(
                number, number + stop - first, route.slot_of_market, route.sids, seqs, route.yes_scale
            )
            transport = route.client.transport
            if not frames or transport is None:
                continue
            for subscription, seq in zip(route.subscriptions, seqs.tolist(), strict=True):
                subscription.seq = seq
            transport.underlying_transport.write(sent)
            exchange.stats.frames_sent += frames
            exchange.stats.deltas_sent += frames
        source.skip(stop)
        return stop - first

    def _find_routes(self) -> list[_Route] | None:
        """By connection; None when one of them carries a market more than once."""
        numbers = self._source.numbers
        routes = []
        for client in self._exchange.clients:
            carried = [s for s in client.subscriptions.values() if s.channel == BOOKS and s.tickers]
            slot_of_market = np.full(len(numbers), -1, np.int32)
            for slot, subscription in enumerate(carried):
                markets = [numbers[ticker] for ticker in subscription.tickers if ticker in numbers]
                if (slot_of_market[markets] >= 0).any():
                    return None
                slot_of_market[markets] = slot
            if carried:
                sids = np.array([subscription.sid for subscription in carried], np.int64)
                scales = np.array([subscription.yes_scale for subscription in carried], np.int8)
                routes.append(_Route(client, carried, slot_of_market, sids, scales))
        return routes
