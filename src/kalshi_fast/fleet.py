"""The connections of one recording: which markets go on which, and all of them run together.

A connection carries at most so many markets: as many as it is to have, or as the exchange allows, which is
found out once for all of them (``size``). What finds no place on one goes to those that have room, then to
as many more as it takes. With a hot standby every connection has a twin with the same markets. Not here: what
a connection does (``feed``), what is said on it (``session``), whose book the rows follow (``recorder``).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

from kalshi_fast._clock import receive_ns
from kalshi_fast.backoff import NS, Backoff, Scale
from kalshi_fast.errors import SubscriptionError
from kalshi_fast.feed import Feed
from kalshi_fast.link import Link
from kalshi_fast.session import Session
from kalshi_fast.size import Size
from kalshi_fast.subscription import Limits

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from kalshi_fast.auth import Signer
    from kalshi_fast.config import Settings
    from kalshi_fast.pool import Pool
    from kalshi_fast.recorder import Recorder

LOOK_S = 0.2  # how often the sessions are asked for markets that they have no room for
MAX_CONNECTIONS = 200
_PLACE_AGAIN = Scale(NS, 300 * NS)

log = logging.getLogger("kalshi_fast.fleet")


class Fleet:
    """``Fleet(settings, signer, recorder, pool, ssl_context)``; ``await run()`` lasts until ``stop``.

    Raises ConnectError when no first connection comes about, SubscriptionError when no market is known to
    the exchange. ``open_ended``: markets will come, so that it is no error to have none; ``patient``: others
    see to it that the configuration is right. ``scale_is_known``: that of no-side prices need not be proven
    first.
    """

    def __init__(
        self,
        settings: Settings,
        signer: Signer,
        recorder: Recorder,
        pool: Pool,
        ssl_context: ssl.SSLContext | None,
        *,
        scale_is_known: bool = False,
    ) -> None:
        self.open_ended = False
        self._hold = not scale_is_known
        self.patient = False
        self.feeds: list[Feed[Link]] = []
        self.size = Size()
        self._homeless: dict[str, tuple[int, int]] = {}  # how often no room was found, and when to try again
        self._pairs: list[list[Feed[Link]]] = []  # a feed, and with a hot standby its twin
        self.unknown_tickers: list[str] = []
        self._settings = settings
        self._signer = signer
        self._recorder = recorder
        self._pool = pool
        self._ssl_context = ssl_context
        self._rng = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._tasks: dict[asyncio.Task[None], Feed[Link]] = {}
        self._copies = 2 if settings.hot_standby else 1
        self._stopped = False
        self._full = False  # the last time there was no room for another connection
        self._wake = asyncio.Event()
        self._past_connections = 0
        self._past_reconnects = 0
        self._place(settings.market_tickers)

    @property
    def connections(self) -> int:
        """How many have been made so far."""
        return self._past_connections + sum(feed.connections for feed in self.feeds)

    @property
    def reconnects(self) -> int:
        """How many of them came after a loss."""
        return self._past_reconnects + sum(max(feed.connections - 1, 0) for feed in self.feeds)

    @property
    def wanted(self) -> int:
        """How many markets are wanted now; quicker than ``tickers``, on a connection or not."""
        carried = sum(max(len(feed.link.session.tickers) for feed in pair) for pair in self._pairs)
        waiting = [ticker for ticker, (times, _) in self._homeless.items() if times > 0]
        if waiting:  # seldom; those that have found a place since are carried
            waiting = list(set(waiting) - self.tickers)
        return carried + len(waiting)

    @property
    def tickers(self) -> set[str]:
        """The markets that are wanted now."""
        return {ticker for feed in self.feeds for ticker in feed.link.session.tickers}

    def stop(self) -> None:
        """Closes all connections; ``run`` returns."""
        self._stopped = True
        self._wake.set()
        for feed in self.feeds:
            feed.stop()

    async def run(self) -> None:
        """Runs all feeds, and those that come to be needed. An error that no retry mends ends all."""
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            while True:
                for feed in self.feeds:
                    if feed not in self._tasks.values() and not self._stopped:
                        self._tasks[asyncio.ensure_future(feed.run())] = feed
                if not self._tasks and (self._stopped or not (self._homeless or self.open_ended)):
                    return
                await asyncio.wait(
                    {waking, *self._tasks}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                for task in [task for task in self._tasks if task.done()]:
                    self._over(task)
                if waking.done() and not self._stopped:
                    self._wake.clear()
                    waking = asyncio.ensure_future(self._wake.wait())
                self._look_after()
        finally:
            self.stop()
            waking.cancel()
            await asyncio.gather(waking, *self._tasks, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._look_after()
        feed = self._tasks.pop(task)
        self.feeds.remove(feed)
        self._recorder.leave(feed.link)
        for pair in self._pairs:
            if feed in pair:
                pair.remove(feed)
        self._pairs = [pair for pair in self._pairs if pair]
        self._past_connections += feed.connections
        self._past_reconnects += max(feed.connections - 1, 0)
        for ticker in feed.link.session.tickers:  # that came when it was on its way out
            self._homeless.setdefault(ticker, (0, 0))
        try:
            task.result()
        except SubscriptionError:
            # No market of this connection is known; those of others may be, or those of before were.
            known = self.open_ended or self._recorder.books.tickers
            if not known and not any(f.link.session.tickers for f in self.feeds):
                raise

    def _look_after(self) -> None:
        """Markets that a session has no room for go elsewhere; who carries none any more, goes."""
        now_ns, at_ns = time.monotonic_ns(), receive_ns()
        for feed in self.feeds:
            feed.link.admission.look(at_ns)
            session = feed.link.session
            for ticker in session.unknown_tickers:
                self._homeless.pop(ticker, None)  # no connection will have room for it
                if ticker not in self.unknown_tickers:
                    self.unknown_tickers.append(ticker)
            tickers, session.overflow = session.overflow, []
            for ticker in tickers:
                session.tickers.pop(ticker, None)
            filled = len(session.tickers) >= self._room()
            for ticker in tickers:
                # At once while connections fill up; ever later when one that has room took it not.
                times = 0 if filled else self._homeless.get(ticker, (0, 0))[0] + 1
                self._homeless[ticker] = (times, now_ns + (_PLACE_AGAIN.bound_ns(times) if times else 0))
        if self._stopped:
            return
        due = [ticker for ticker, (_, due_ns) in self._homeless.items() if due_ns <= now_ns]
        if due:
            carried = Counter(ticker for feed in self.feeds for ticker in feed.link.session.tickers)
            # A twin may find no room for what its other half has already brought elsewhere.
            homeless = [ticker for ticker in due if carried[ticker] < self._copies]
            for ticker in set(due).difference(homeless):  # it has kept its place until now
                del self._homeless[ticker]
            due = homeless
        if due:
            for ticker in due:
                times, _ = self._homeless[ticker]
                self._homeless[ticker] = (times, now_ns + _PLACE_AGAIN.bound_ns(times))
            self._place_or_wait(due)
        living = [pair for pair in self._pairs if not all(feed.ending for feed in pair)]
        left = len(living)
        for pair in living:
            empty = [feed for feed in pair if not feed.link.session.tickers and feed.connections]
            if len(empty) == len(pair):
                if left == 1:
                    continue  # for markets to come
                left -= 1
            for feed in empty:
                feed.stop()

    # --- markets ----------------------------------------------------------------------------------

    def add(self, tickers: Iterable[str]) -> None:
        """Records these markets too, from now on."""
        carried = self.tickers
        new = [ticker for ticker in dict.fromkeys(tickers) if ticker not in carried]
        self.forgive(new)
        if new:
            self._place_or_wait(new)

    def _room(self) -> int:
        """So many markets at most are for one connection."""
        room = self.size.room(time.monotonic_ns())
        most = self._settings.connection_markets
        return most if room is None else max(min(room, most), 1)

    def _fill(self, tickers: list[str]) -> list[str]:
        """Gives these markets to connections that have room; those that are left."""
        room, left = self._room(), tickers
        for pair in self._pairs:
            if not left:
                break
            if len(pair) < self._copies or any(feed.ending for feed in pair):
                continue
            free = room - max(len(feed.link.session.tickers) for feed in pair)
            if free > 0:
                for feed in pair:
                    feed.link.add(left[:free])
                left = left[free:]
        return left

    def remove(self, tickers: Iterable[str]) -> None:
        """Ends the recording of these markets."""
        gone = list(tickers)
        for ticker in gone:
            self._homeless.pop(ticker, None)
        for feed in self.feeds:
            feed.link.remove(gone)

    def forgive(self, tickers: Iterable[str]) -> None:
        """The exchange may know these markets by now, or they are not asked for any more."""
        gone = set(tickers)
        self.unknown_tickers = [ticker for ticker in self.unknown_tickers if ticker not in gone]
        for feed in self.feeds:
            session = feed.link.session
            session.unknown_tickers = [ticker for ticker in session.unknown_tickers if ticker not in gone]

    def _place_or_wait(self, tickers: list[str]) -> None:
        """What finds no place now is tried again, ever later; it is said when that begins."""
        try:
            self._place(self._fill(tickers))
        except SubscriptionError as error:
            carried, now_ns = self.tickers, time.monotonic_ns()
            for ticker in tickers:
                if ticker not in carried:
                    times = self._homeless.get(ticker, (0, 0))[0] + 1
                    self._homeless[ticker] = (times, now_ns + _PLACE_AGAIN.bound_ns(times))
            if not self._full:
                log.warning("%s; trying again later", error)
            self._full = True
        else:
            self._full = False

    def _place(self, tickers: Iterable[str]) -> None:
        """New connections for these markets. Only the very first one shows that the configuration is right;
        the others are patient from the start."""
        wanted = list(tickers)
        room = self._room()
        for start in range(0, len(wanted), room):
            if len(self.feeds) + self._copies > MAX_CONNECTIONS:
                raise SubscriptionError(
                    f"MARKET_TICKERS: {len(wanted)} markets want more than {MAX_CONNECTIONS} connections"
                )
            part = wanted[start : start + room]
            pair = []
            for _ in range(self._copies):
                patient = self.patient or bool(self.feeds) or self._past_connections > 0
                pair.append(self._feed(part, patient=patient))
                self.feeds.append(pair[-1])
            self._pairs.append(pair)
        self._wake.set()

    def _feed(self, tickers: list[str], *, patient: bool) -> Feed[Link]:
        settings = self._settings
        session = Session(
            tickers,
            clock=time.monotonic_ns,
            rng=self._rng,
            limits=Limits(markets_per_command=settings.subscription_markets),
            use_yes_price=settings.use_yes_price,
            size=self.size,
        )
        return Feed(
            settings.ws_url,
            self._signer,
            Link(self._recorder, session, hold=self._hold),
            self._pool,
            ssl_context=self._ssl_context,
            backoff=Backoff(
                self._rng,
                Scale(settings.ws_backoff_ns, settings.ws_backoff_max_ns),
                Scale(settings.ws_refused_ns, 10 * settings.ws_refused_ns),
            ),
            hostname=settings.ws_hostname,
            idle_s=settings.ws_idle_ns / 1e9,
            patient=patient,
        )
