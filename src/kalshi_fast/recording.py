"""One recording, put together from settings: fleet → recorder → shared memory → writer process, and its end.

``open`` checks and opens everything that can be wrong before the first connection; ``run`` lasts until
``stop`` (or SIGINT, SIGTERM); ``close`` delivers what is buffered. This process touches neither the disk nor
the database. Not here: what the parts do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import time
import uuid
from typing import TYPE_CHECKING

from kalshi_fast import _clock
from kalshi_fast._clock import receive_ns
from kalshi_fast.auth import Signer
from kalshi_fast.books import Books
from kalshi_fast.channels.feeds import ChannelFeeds
from kalshi_fast.channels.session import LIFECYCLE, MULTIVARIATE, TRADE
from kalshi_fast.config import BOOKS, Settings, require_key, require_live
from kalshi_fast.dial import exchange_tls
from kalshi_fast.discovery import listing
from kalshi_fast.discovery.follower import Follower
from kalshi_fast.discovery.inquiry import Inquiry
from kalshi_fast.discovery.selection import nothing_found, selected
from kalshi_fast.errors import ConfigError, KalshiFastError, TuningError
from kalshi_fast.fleet import Fleet
from kalshi_fast.pool import BatchPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.rest import Rest
from kalshi_fast.ring import MAX_SLOTS, Ring
from kalshi_fast.status.publish import Publisher
from kalshi_fast.tuning import capture, collector
from kalshi_fast.tuning.spin import Spinner
from kalshi_fast.writer import Writer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from kalshi_fast.rest_bodies import RestMarket
    from kalshi_fast.strategy import Strategy

PROGRESS_S = 0.5
READY_SLOTS = 64  # of the ring at the start: it uses the first ones that are free, so mostly these
CLOSE_WAIT_S = 30.0

log = logging.getLogger("kalshi_fast.recording")


class Recording:
    """``Recording(settings)``, then ``open``, ``await run``, ``close``. Raises KalshiFastError.

    ``strategy``: sees every event that is recorded; see ``strategy``.
    """

    def __init__(
        self, settings: Settings, strategy: Strategy | None = None, *, scale_is_known: bool = False
    ) -> None:
        require_live(settings)
        self._scale_is_known = scale_is_known
        self._strategy = strategy
        self.settings = settings
        self.id = uuid.uuid4()
        self.books = Books()
        self.conn_id = 0  # of no connection
        self.started = 0.0
        self._rest: Rest | None = None
        self._inquiry_rest: Rest | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """Reads the key, finds the markets, opens the stores; the calling thread is the one to ``run``.
        Raises ConfigError, RestError or SinkError."""
        self.settings = capture.prepare(self.settings)
        signer = Signer.from_file(*require_key(self.settings))
        self._find(signer, progress)
        settings = self.settings
        context = exchange_tls(settings.ws_url, settings.ws_cafile)
        if settings.parquet_dir is None and settings.clickhouse_url is None:
            raise ConfigError("CLICKHOUSE_URL and PARQUET_DIR are both off: nothing would be recorded")
        slots = min(max(4, settings.buffer_max_rows // settings.batch_rows), MAX_SLOTS)
        self._ring = Ring.create(settings.batch_rows, slots, self.id)
        self._populate(MAX_SLOTS if settings.lock_memory else READY_SLOTS)
        self.status = None if settings.http_listen is None else Publisher(settings)
        self.writer = Writer(self._ring, settings, self.status.writer_fd if self.status else None)
        try:
            self.writer.start()
            try:
                self._open_capture(signer, context)
            except BaseException:
                self._close_writer()
                raise
        except BaseException:
            if self.status is not None:
                self.status.close()
            raise

    def described(self) -> str:
        """What is recorded from now on, and where to."""
        settings = self.settings
        stores = [
            *([] if settings.clickhouse_url is None else [f"ClickHouse ({settings.clickhouse_url})"]),
            *([] if settings.parquet_dir is None else [f"Parquet ({settings.parquet_dir})"]),
        ]
        return (
            f"recording {len(settings.market_tickers):,} markets into {' and '.join(stores)},"
            f" with a journal in {settings.journal_dir}; Ctrl-C ends it"
        )

    def _open_capture(self, signer: Signer, context: ssl.SSLContext | None) -> None:
        """What this process does itself, when the writer runs."""
        settings = self.settings
        if self.writer.warning:
            log.warning("%s", self.writer.warning)
        _clock.not_before(self.writer.floor_ns + 1)
        self.pool = BatchPool(
            self._ring, self.books.tickers, self.books.ids, self.writer.wake, self.writer.floor_ns
        )
        self.recorder = Recorder(self.books, self.pool, self.pool.deliver, seal_rows=settings.batch_rows)
        if self._strategy is not None:
            self.recorder.attach(self._strategy)
        self.fleet = Fleet(
            settings, signer, self.recorder, self.pool, context, scale_is_known=self._scale_is_known
        )
        self.channels = ChannelFeeds(settings, signer, self.recorder, self.pool, context)
        self.channels.streams.go_on_after(self.writer.late_trades, self.writer.trades_forgotten_us)
        self._open_ended()
        capture.apply(settings)  # last: what has been started above is not meant

    def _close_writer(self) -> None:
        """Without a recording: what it could not deliver is the lesser error, and stays in the journal."""
        try:
            self.writer.close()
        except KalshiFastError as error:
            log.error("%s", error)

    def _populate(self, slots: int) -> None:
        try:
            self._ring.populate(slots)
        except TuningError as error:
            if self.settings.lock_memory:
                raise
            log.debug("%s", error)  # nobody has asked for it

    def _find(self, signer: Signer, progress: Callable[[str], None]) -> None:
        """The markets of the selection; from here on the settings name them all."""
        settings, selection = self.settings, selected(self.settings)
        found: dict[str, RestMarket] = {}
        if settings.rest_url is not None:
            self._rest = Rest(settings.rest_url, signer, cafile=settings.ws_cafile)
            self._inquiry_rest = Rest(settings.rest_url, signer, cafile=settings.ws_cafile)
            if selection.discovers:
                progress("asking for the markets …")
                found = listing.find(
                    self._rest, selection, progress=lambda n: progress(f"{n:,} markets so far")
                )
                if not found and not selection.tickers:
                    raise nothing_found(selection)
            elif settings.market_tickers_file is None:  # else the file may change
                listing.some_known(self._rest, selection.tickers)
        chosen = selection.choose(found)
        found = {ticker: found[ticker] for ticker in chosen}
        self.follower = Follower(settings, selection, self._rest, found)
        tickers = tuple(dict.fromkeys((*selection.tickers, *chosen)))
        channels = settings.channels
        if selection.combinations and LIFECYCLE in channels and MULTIVARIATE not in channels:
            channels = (*channels, MULTIVARIATE)  # their life is announced there only
        self.settings = dataclasses.replace(settings, market_tickers=tickers, channels=channels)

    def _open_ended(self) -> None:
        """Markets may come, even if there is none now."""
        heard = LIFECYCLE in self.settings.channels
        if self.follower.selection.discovers and not heard:
            log.warning(
                "CHANNELS: without %s new markets are found every %d s only (DISCOVERY_SECS)",
                LIFECYCLE,
                self.settings.discovery_secs,
            )
        self.fleet.open_ended = (
            self.follower.selection.discovers or self.settings.market_tickers_file is not None
        )
        self.fleet.patient = bool(self.channels.feeds)
        self.channels.streams.listener = self.follower

    async def run(self, progress: Callable[[Recording], None] | None = None) -> None:
        """Records until ``stop``, a signal, or an error that no retry can mend."""
        self._loop = asyncio.get_running_loop()
        self.started = time.monotonic()
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(signum, self.stop)
        if self.status is not None:
            self.status.start(self)
        works = [self._seal_on_time(), self._collect_in_quiet()]
        if self._inquiry_rest is not None:
            inquiry = Inquiry(self._inquiry_rest, self.recorder, lambda: self.follower.selection.tickers)
            works.append(inquiry.run())
        if progress is not None:
            works.append(self._show(progress))
        tasks = [asyncio.ensure_future(work) for work in works]
        spinner = Spinner(self._loop)
        if self.settings.busy_poll:
            spinner.start()
        try:
            await self._run_feeds()
        finally:
            spinner.stop()
            if self.status is not None:
                self.status.say_closing(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop = None
            # Before the loop ends: that waits for every thread, and a request may hang in one.
            self.recorder.look()
            self.recorder.seal()

    async def _run_feeds(self) -> None:
        """Until the first of them ends, and with it all."""
        tasks = []
        if BOOKS in self.settings.channels:
            tasks.append(asyncio.ensure_future(self.fleet.run()))
        if self.channels.feeds:
            tasks.append(asyncio.ensure_future(self.channels.run()))
        tasks.append(asyncio.ensure_future(self.follower.run(self)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.stop()
            tasks[-1].cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        *of_feeds, of_follower = ended
        for error in of_feeds:
            if isinstance(error, BaseException):
                raise error
        if isinstance(of_follower, Exception):  # else it was cancelled, as it had to be
            raise of_follower

    # --- markets that come and go -----------------------------------------------------------------

    def follow(self, settings: Settings) -> None:
        """From now on records the markets that these settings select, and no others. Raises ConfigError."""
        self.follower.follow(settings)
        self._open_ended()

    def add(self, tickers: Iterable[str]) -> None:
        """Records these markets too, from now on."""
        new = list(tickers)
        if BOOKS in self.settings.channels:
            self.fleet.add(new)
        self.channels.add(new)

    def hears_trades(self, ticker: str) -> bool:
        """All that is traded of this market comes from now on, or it is not wanted anyway."""
        return self.channels.hears_trades(ticker)

    def missed_trades(self, since_ns: int) -> None:
        """Trades have been missed from then until now."""
        if TRADE in self.settings.channels:
            self.channels.streams.missed(since_ns, receive_ns())

    def remove(self, tickers: Iterable[str]) -> None:
        """Ends the recording of these markets: their books are unknown from now on, and let go."""
        gone = list(tickers)
        self.fleet.remove(gone)
        self.channels.remove(gone)
        self.recorder.forget(gone, receive_ns())

    def learned(self, market: RestMarket, asked_ns: int) -> None:
        """What REST says of a market, asked at that receive time."""
        self.channels.streams.learned(market, asked_ns)

    def refused(self) -> list[str]:
        """Markets that the exchange does not know."""
        return self.fleet.unknown_tickers

    def forgive(self, tickers: Iterable[str]) -> None:
        """These are not asked for any more, so that they are no errors."""
        self.fleet.forgive(tickers)

    def say(self, event: str, detail: str) -> None:
        """One row of feed_health, of no connection."""
        self.recorder.health(receive_ns(), self, event, detail=detail)

    @property
    def settled(self) -> bool:
        """No trade that was missed is still asked for."""
        return self.channels.idle

    def stop(self) -> None:
        """Ends the feeds; what is buffered is delivered by ``close``."""
        self.fleet.stop()
        self.channels.stop()
        for rest in (self._rest, self._inquiry_rest):
            if rest is not None:
                rest.close()

    def close(self) -> None:
        """Delivers everything buffered and closes the stores. Raises SinkError when one refused."""
        self.recorder.look()
        self.recorder.seal()
        deadline = time.monotonic() + CLOSE_WAIT_S
        while not self.pool.pump() and time.monotonic() < deadline:  # what found no room so far
            time.sleep(0.005)
        try:
            self.writer.close(self.pool.unsent)
        finally:
            if self.status is not None:
                self.status.close()

    async def _seal_on_time(self) -> None:
        while True:
            await asyncio.sleep(self.settings.batch_flush_ns / 1e9)
            self.pool.pump()
            if not self.pool.pressed:  # else batches with little in them would take the last memory
                self.recorder.seal()

    async def _collect_in_quiet(self) -> None:
        with collector.QuietCollector(lambda: self.recorder.counts.frames) as quiet:
            while True:
                await asyncio.sleep(collector.LOOK_S)
                quiet.look()

    async def _show(self, progress: Callable[[Recording], None]) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            progress(self)

    def summary(self) -> dict[str, int]:
        """The figures of the recording so far."""
        counts = self.recorder.counts
        report = self.writer.report
        return {
            "connections": self.fleet.connections + self.channels.connections,
            "markets": len(self.books.tickers),
            "frames_received": counts.frames,
            "events": counts.events,
            "snapshots": counts.snapshots,
            "deltas": counts.deltas,
            "gaps": counts.gaps,
            "gap_events": counts.gap_events,
            "frames_repeated": counts.repeated,
            "frames_foreign": counts.foreign,
            "frames_rejected": counts.rejected,
            "frames_lossy": counts.losses.lossy.total(),
            "fields_lost": counts.losses.fields.total(),
            "trades": counts.trades,
            "trades_repeated": counts.trades_repeated,
            "trades_filled": counts.trades_filled,
            "tickers": counts.tickers,
            "lifecycle": counts.lifecycle,
            "reference_prices": counts.reference_prices,
            "handovers": counts.handovers,
            "blackout_us": counts.blackout_us,
            "unknown_types": counts.unknown_types.total(),
            "unknown_keys": counts.unknown_keys.total(),
            "clickhouse_rows": report.rows.get("ClickHouse", 0),
            "parquet_rows": report.rows.get("Parquet", 0),
            "queryable_p50_us": report.queryable_us.get("50", 0),
            "queryable_p99_us": report.queryable_us.get("99", 0),
            "journal_bytes": report.journal_bytes,
            "writer_restarts": self.writer.restarts,
        }
