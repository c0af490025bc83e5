"""The connections that carry the channels beside the order book, and the backfill beside them.

One connection has all of them (with a hot standby two have), apart from the books' connections. Not here:
what is done on one (``link``, ``session``), what becomes of it (``streams``).
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from kalshi_fast._clock import receive_ns
from kalshi_fast.backoff import Backoff, Scale
from kalshi_fast.channels.backfill import Backfill, trades_of
from kalshi_fast.channels.link import ChannelLink
from kalshi_fast.channels.reference import by_channel
from kalshi_fast.channels.session import TRADE, ChannelSession
from kalshi_fast.channels.streams import Streams
from kalshi_fast.config import BOOKS
from kalshi_fast.feed import Feed
from kalshi_fast.rest import Rest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from kalshi_fast.auth import Signer
    from kalshi_fast.config import Settings
    from kalshi_fast.pool import Pool
    from kalshi_fast.recorder import Recorder


class ChannelFeeds:
    """``ChannelFeeds(settings, signer, recorder, pool, ssl_context)``; ``await run()`` lasts until ``stop``.

    Raises ConnectError when no first connection comes about and no book's connection is there to say so.
    ``conn_id``: its health rows are of none.
    """

    conn_id = 0

    def __init__(
        self,
        settings: Settings,
        signer: Signer,
        recorder: Recorder,
        pool: Pool,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.streams = Streams(recorder, settings.market_tickers)
        self.feeds: list[Feed[ChannelLink]] = []
        self.backfill: Backfill | None = None
        self._rest: Rest | None = None
        self._stopped = False
        wanted = [channel for channel in settings.channels if channel != BOOKS]
        reference = by_channel(settings.reference)
        wanted += [*settings.raw, *reference]
        if not wanted:
            return
        if settings.rest_url is not None:
            self._rest = Rest(settings.rest_url, signer, cafile=settings.ws_cafile)
            self.backfill = Backfill(self._rest, self.streams, pool)
        rng = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        for number in range(2 if settings.hot_standby else 1):
            session = ChannelSession(
                wanted,
                settings.market_tickers,
                clock=time.monotonic_ns,
                rng=rng,
                most_markets=settings.subscription_markets,
                reference=reference,
            )
            self.feeds.append(
                Feed(
                    settings.ws_url,
                    signer,
                    ChannelLink(self.streams, session, raw=settings.raw),
                    pool,
                    ssl_context=ssl_context,
                    backoff=Backoff(
                        rng,
                        Scale(settings.ws_backoff_ns, settings.ws_backoff_max_ns),
                        Scale(settings.ws_refused_ns, 10 * settings.ws_refused_ns),
                    ),
                    hostname=settings.ws_hostname,
                    idle_s=settings.ws_idle_ns / 1e9,
                    patient=(BOOKS in settings.channels and bool(settings.market_tickers)) or number > 0,
                )
            )

    @property
    def connections(self) -> int:
        """How many have been made so far."""
        return sum(feed.connections for feed in self.feeds)

    @property
    def reconnects(self) -> int:
        """How many of them came after a loss."""
        return sum(max(feed.connections - 1, 0) for feed in self.feeds)

    @property
    def refused(self) -> list[str]:
        """Channels that are wanted and that no connection has, since the exchange refuses them."""
        sessions = [feed.link.session for feed in self.feeds]
        refused = dict.fromkeys(name for session in sessions for name in session.refused)
        return [name for name in refused if not any(session.carries(name) for session in sessions)]

    @property
    def idle(self) -> bool:
        """Nothing that was missed is waited for."""
        return self.backfill is None or self.backfill.idle

    def hears_trades(self, ticker: str) -> bool:
        """All that is traded of this market comes from now on, or it is not wanted anyway."""
        sessions = [feed.link.session for feed in self.feeds]
        return not any(TRADE in session.channels for session in sessions) or any(
            session.hears(TRADE, ticker) for session in sessions
        )

    def stop(self) -> None:
        """Closes all connections; ``run`` returns."""
        if not self._stopped:  # later every connection misses what comes
            self._stopped = True
            self.streams.end(receive_ns())
        for feed in self.feeds:
            feed.stop()
        if self._rest is not None:
            self._rest.close()

    def add(self, tickers: Iterable[str]) -> None:
        """Records these markets too, from now on."""
        new = list(tickers)
        self.streams.add(new)
        for feed in self.feeds:
            feed.link.session.add(new)

    def remove(self, tickers: Iterable[str]) -> None:
        """Ends the recording of these markets."""
        gone = list(tickers)
        self.streams.remove(gone)
        for feed in self.feeds:
            feed.link.session.remove(gone)

    async def run(self) -> None:
        """Runs all feeds; an error that no retry mends ends all."""
        tasks = [asyncio.ensure_future(feed.run()) for feed in self.feeds]
        filling = asyncio.ensure_future(self.backfill.run()) if self.backfill is not None else None
        try:
            await asyncio.gather(*tasks)
        finally:
            self.stop()
            await asyncio.gather(*tasks, return_exceptions=True)
            if filling is not None:
                filling.cancel()
                await asyncio.gather(filling, return_exceptions=True)
            self._say_missed()

    def _say_missed(self) -> None:
        """What is still to be asked for: the next recording goes back only a little."""
        left, self.streams.interruptions = self.streams.interruptions, []
        for found in sorted(left):
            detail = f"{trades_of(found)}: not all of them had been asked for when the recording ended"
            self.streams.recorder.health(receive_ns(), self, "trades_missed", detail=detail)
