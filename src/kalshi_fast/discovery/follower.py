"""Keeps a running recording to its selection: what is announced and fits comes in, what is settled goes.

The life-cycle channel says first what there is; REST is asked again whenever that channel may have missed
something, and every so many seconds. A settled market goes a while after it was announced, when its last
frames and its missed trades are in. A file of tickers is read anew when it has changed. Who is carried is
known here; nobody else adds or removes. Runs on the event loop of the feeds; requests and files wait in
threads. Not here: requests (``listing``), subscriptions (``fleet``, ``channels``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast._clock import receive_ns
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.discovery import listing
from kalshi_fast.discovery.selection import Selection, selected
from kalshi_fast.errors import ConfigError, KalshiFastError, RestError
from kalshi_fast.statuses import is_over

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Protocol

    from kalshi_fast.channels.messages import LifecycleBody
    from kalshi_fast.config import Settings
    from kalshi_fast.rest import Rest
    from kalshi_fast.rest_bodies import RestMarket

    class Recorded(Protocol):
        """The recording, as it is seen from here."""

        def add(self, tickers: Iterable[str]) -> None:
            """From now on these too."""

        def hears_trades(self, ticker: str) -> bool:
            """All that is traded of this market comes from now on, or it is not wanted anyway."""

        def missed_trades(self, since_ns: int) -> None:
            """Trades have been missed from then until now."""

        def remove(self, tickers: Iterable[str]) -> None:
            """These no more."""

        def learned(self, market: RestMarket, asked_ns: int) -> None:
            """What REST says of a market, asked at that receive time."""

        def refused(self) -> list[str]:
            """Markets that the exchange does not know."""

        def forgive(self, tickers: Iterable[str]) -> None:
            """They are not asked for any more."""

        def say(self, event: str, detail: str) -> None:
            """For feed_health."""

        @property
        def settled(self) -> bool:
            """No trade that was missed is still asked for."""


log = logging.getLogger("kalshi_fast.discovery")

LOOK_S: Final = 0.1
LEARN_AT_ONCE: Final = 50
PAGE: Final = 200  # markets of one answer: while it is decoded, no frame is
FILE_S: Final = 1.0  # between two looks at the file of tickers
DROP_AFTER_S: Final = 5.0  # the announcement may be ahead of the last frames of a book
DROP_LATEST_S: Final = 3600.0  # REST may be away for ever, and missed trades with it
REMEMBER_S: Final = 900.0  # REST may call a settled market open for a while
AGAIN: Final = Scale(2 * NS, 60 * NS)


class Follower:
    """``Follower(settings, rest, found)``: ``found`` are the markets that are carried from the start beside
    those of ``selection``; ``await run(recording)`` until it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        selection: Selection,
        rest: Rest | None,
        found: dict[str, RestMarket],
        *,
        drop_after_s: float = DROP_AFTER_S,
    ) -> None:
        self.selection = selection
        self.found: dict[str, None] = dict.fromkeys(t for t in found if t not in selection.tickers)
        self.listings = 0
        self._learnt = found
        self._settings = settings
        self._rest = rest
        self._every_s = float(settings.discovery_secs)
        self._drop_after_s = drop_after_s
        self._named = set(selection.tickers)
        self._ended: dict[str, float] = {}  # settled, and since when that is known
        self._fresh: dict[str, None] = {}  # to come in
        self._late: dict[str, int] = {}  # since when trades may be missed of what is not heard of yet
        self._recording: Recorded | None = None
        self._listed_s = time.monotonic()
        self._listed_ns = receive_ns()
        self._again = False
        self._listing = False
        self._changed = False
        self._failures = 0
        self._retry_s = 0.0
        self._file_s = 0.0
        self._file: tuple[int, int, int] | None = None

    @property
    def idle(self) -> bool:
        """Nothing is on its way in, and REST has no answer to give."""
        asked = self._listing or (self._again and self.selection.discovers)
        return not (asked or self._fresh or self._late)

    # --- what is announced ------------------------------------------------------------------------

    def announced(self, body: LifecycleBody) -> None:
        """Something of a market's life."""
        ticker, kind = body.market_ticker, body.event_type
        if kind == "settled":
            if ticker in self.found:
                self._ended.setdefault(ticker, time.monotonic())
        elif kind in ("created", "activated"):
            if self._fits(body):
                self.found[ticker] = None
                self._come_in([ticker])
            if kind == "activated" and ticker in self.found and ticker not in self._late:
                recording = self._recording
                if recording is None or ticker in self._fresh or not recording.hears_trades(ticker):
                    self._late[ticker] = receive_ns()

    def _fits(self, body: LifecycleBody) -> bool:
        ticker, selection = body.market_ticker, self.selection
        if ticker in self.found or ticker in self._named or ticker in self._ended:
            return False
        if selection.top is not None and len(self.found) >= selection.top:
            return False  # it has no volume yet
        more = body.additional_metadata or {}
        event, series = (more.get(name) for name in ("event_ticker", "series_ticker"))
        return selection.discovers and selection.announced(ticker, _text(event), _text(series))

    def _come_in(self, tickers: Iterable[str]) -> None:
        """At the end of what has just been read: what was announced together is subscribed together."""
        if not self._fresh and self._recording is not None:
            asyncio.get_running_loop().call_soon(self._let_in)
        self._fresh.update(dict.fromkeys(tickers))

    def _let_in(self) -> None:
        fresh, self._fresh = self._fresh, {}
        if self._recording is not None:
            self._recording.add([ticker for ticker in fresh if ticker in self.found])

    def resumed(self) -> None:
        """The announcements go on after they may have been missed."""
        self._again = True

    # --- what is wanted ---------------------------------------------------------------------------

    def follow(self, settings: Settings) -> None:
        """From now on these settings say what is wanted. Raises ConfigError, and then nothing has changed."""
        selection = selected(settings)
        self._settings, self._file = settings, None
        self._select(selection)

    def _select(self, selection: Selection) -> None:
        if selection == self.selection or self._recording is None:
            return
        before, self.selection = self._named, selection
        self._named = set(selection.tickers)
        new = [t for t in selection.tickers if t not in before and t not in self.found]
        for ticker in self._named & self.found.keys():
            del self.found[ticker]
            self._ended.pop(ticker, None)
        gone = []
        for ticker in sorted(before - self._named):
            if selection.discovers and selection.announced(ticker, "", ""):
                self.found[ticker] = None
            else:
                gone.append(ticker)
        if selection.discovers:
            self._again = self._changed = True  # which of those found stay, REST will say
        else:
            gone += self.found
            self._ended.clear()
        self._recording.add(new)
        self._let_go(gone)

    # --- the run ----------------------------------------------------------------------------------

    async def run(self, recording: Recorded) -> None:
        self._recording = recording
        if self._rest is not None:
            self._say_unread(self._rest)
        learnt, self._learnt = self._learnt, {}
        await self._learn(learnt.values(), receive_ns())
        while True:
            await asyncio.sleep(LOOK_S)
            self._catch_up()
            self._drop()
            now_s = time.monotonic()
            if now_s - self._file_s >= FILE_S:
                self._file_s = now_s
                await self._look_at_file()
            due = self._again or now_s - self._listed_s >= self._every_s
            if due and self.selection.discovers and self._rest is not None and now_s >= self._retry_s:
                self._listing = True
                await self._list(self._rest)
                self._listing = False

    def _catch_up(self) -> None:
        """What opened before its trades were heard has them asked for."""
        assert self._recording is not None  # noqa: S101 - it runs
        heard = [t for t in self._late if t not in self._fresh and self._recording.hears_trades(t)]
        if heard:
            self._recording.missed_trades(min(self._late.pop(ticker) for ticker in heard))

    def _drop(self) -> None:
        """Those that are settled, when nothing of them is still to come; and those that nobody knows."""
        assert self._recording is not None  # noqa: S101 - it runs
        recording, now_s = self._recording, time.monotonic()
        gone = []
        for ticker, since_s in list(self._ended.items()):
            if ticker not in self.found:
                if now_s - since_s >= REMEMBER_S:
                    del self._ended[ticker]
            elif now_s - since_s >= (self._drop_after_s if recording.settled else DROP_LATEST_S):
                gone.append(ticker)
        refused = [ticker for ticker in recording.refused() if ticker in self.found]
        if refused:
            # It may be known when it is opened; then it is announced once more.
            recording.forgive(refused)
        if gone or refused:
            self._let_go([*gone, *refused])

    def _let_go(self, tickers: list[str]) -> None:
        assert self._recording is not None  # noqa: S101 - it runs
        for ticker in tickers:
            self.found.pop(ticker, None)
            self._late.pop(ticker, None)
        self._recording.remove(tickers)

    async def _look_at_file(self) -> None:
        path = self._settings.market_tickers_file
        if path is None:
            return
        signature = await asyncio.to_thread(_signature, path)
        if signature == self._file:
            return
        self._file = signature
        try:
            selection = await asyncio.to_thread(selected, self._settings)
        except ConfigError as error:
            log.error("the markets stay as they are: %s", error)
        else:
            self._select(selection)

    async def _list(self, rest: Rest) -> None:
        """Asks REST, and brings in and out what the answer says."""
        selection, carried, changed = self.selection, list(self.found), self._changed
        self._again = self._changed = False
        self._listed_s = time.monotonic()
        listed_ns = receive_ns()
        try:
            found = await asyncio.to_thread(listing.find, rest, selection, page=PAGE)
            wanted = await asyncio.to_thread(selection.choose, found, carried)
            lost = [ticker for ticker in carried if ticker not in found]
            known = await asyncio.to_thread(listing.named, rest, lost)
        except (RestError, ConfigError) as error:
            self._failed(error)
            self._changed |= changed
            return
        finally:
            self._say_unread(rest)
        self._failures = 0
        self.listings += 1
        if selection == self.selection:  # else it is asked again, for what is wanted now
            self._take(found, known, carried, wanted, changed=changed)
            self._listed_ns = listed_ns
            await self._learn(known.values(), listed_ns)
            await self._learn((found[ticker] for ticker in wanted), listed_ns)

    def _say_unread(self, rest: Rest) -> None:
        assert self._recording is not None  # noqa: S101 - it runs
        for sentence in rest.said():
            self._recording.say("markets_missed", f"REST: {sentence}")

    async def _learn(self, markets: Iterable[RestMarket], asked_ns: int) -> None:
        """Little by little: frames must not wait for it."""
        assert self._recording is not None  # noqa: S101 - it runs
        for number, market in enumerate(markets):
            if number % LEARN_AT_ONCE == 0:
                await asyncio.sleep(0)
            if market.ticker in self.found or market.ticker in self._named:
                self._recording.learned(market, asked_ns)

    def _failed(self, error: KalshiFastError) -> None:
        assert self._recording is not None  # noqa: S101 - it runs
        self._again = True
        self._failures += 1
        wait_ns = AGAIN.bound_ns(self._failures)
        self._retry_s = time.monotonic() + wait_ns / NS
        log.warning("the markets cannot be listed: %s; again in %d s", error, wait_ns // NS)
        self._recording.say("markets_missed", f"the markets cannot be listed: {error}")

    def _take(
        self,
        found: dict[str, RestMarket],
        known: dict[str, RestMarket],
        carried: list[str],
        wanted: list[str],
        *,
        changed: bool,
    ) -> None:
        chosen = {ticker for ticker in wanted if ticker not in self._ended}
        gone = [t for t in carried if t in found and t not in chosen and t not in self._ended]
        for ticker, market in known.items():
            if is_over(market.status):
                if ticker in self.found:
                    self._ended.setdefault(ticker, time.monotonic())
            elif changed and not self.selection.finds(market):
                gone.append(ticker)
        self._let_go(gone)
        new = [t for t in wanted if t in chosen and t not in self.found and t not in self._named]
        self.found.update(dict.fromkeys(new))
        self._late.update(dict.fromkeys(new, self._listed_ns))
        self._come_in(new)


def _signature(path: Path | None) -> tuple[int, int, int] | None:
    """Another one when the file has changed; None: there is none."""
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
