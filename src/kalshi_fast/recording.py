"""One recording, put together from settings: fleet → recorder → writer → stores, and its orderly end.

``open`` checks and opens everything that can be wrong before the first connection; ``run`` lasts until
``stop`` (or SIGINT, SIGTERM); ``close`` delivers what is buffered. Not here: what the parts do.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kalshi_fast.auth import Signer
from kalshi_fast.batch import ArrowViews, BatchPool
from kalshi_fast.books import Books
from kalshi_fast.config import Settings, require_live
from kalshi_fast.errors import ConfigError
from kalshi_fast.feed import tls_context
from kalshi_fast.fleet import Fleet
from kalshi_fast.recorder import Recorder
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.parquet import ParquetSink
from kalshi_fast.sinks.rejects import RejectSink
from kalshi_fast.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kalshi_fast.sinks import Sink

PROGRESS_S = 0.5


class Recording:
    """``Recording(settings)``, then ``open``, ``await run``, ``close``. Raises KalshiFastError."""

    def __init__(self, settings: Settings) -> None:
        require_live(settings)
        self.settings = settings
        self.id = uuid.uuid4().hex
        self.books = Books()
        self.views = ArrowViews(self.books.tickers, self.books.ids)
        self.sinks: list[Sink] = []
        self.started = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Reads the key, opens the stores. Raises ConfigError or SinkError."""
        settings = self.settings
        assert settings.prod_keyid is not None  # noqa: S101 - require_live has seen to it
        assert settings.prod_keyfile is not None  # noqa: S101
        signer = Signer.from_file(settings.prod_keyid, settings.prod_keyfile)
        context = tls_context(settings.ws_cafile) if urlsplit(settings.ws_url).scheme == "wss" else None
        if settings.parquet_dir is None and settings.clickhouse_url is None:
            raise ConfigError("CLICKHOUSE_URL and PARQUET_DIR are both off: nothing would be recorded")
        if settings.parquet_dir is not None:
            self.sinks.append(
                ParquetSink(
                    settings.parquet_dir,
                    self.views,
                    recorder=self.id,
                    max_bytes=settings.parquet_max_bytes,
                    max_secs=settings.parquet_max_secs,
                )
            )
            self.sinks.append(RejectSink(settings.parquet_dir))
        if settings.clickhouse_url is not None:
            client = clickhouse.connect(
                settings.clickhouse_url,
                user=settings.clickhouse_user,
                password=settings.clickhouse_password,
                database=settings.clickhouse_database,
                cluster=settings.clickhouse_cluster,
            )
            sink = ClickHouseSink(client, self.views, recorder_id=self.id)
            sink.forget_levels(list(settings.market_tickers), time.time_ns())
            # First in line: rows are to be queryable as soon as can be.
            self.sinks.insert(0, sink)
        self.pool = BatchPool(settings.batch_rows, max(2, settings.buffer_max_rows // settings.batch_rows))
        self.writer = Writer(self.sinks, release=self.pool.release, failed=self._writer_failed)
        self.recorder = Recorder(self.books, self.pool, self.writer.offer, seal_rows=settings.batch_rows)
        self.fleet = Fleet(settings, signer, self.recorder, self.pool, context)

    async def run(self, progress: Callable[[Recording], None] | None = None) -> None:
        """Records until ``stop``, a signal, or an error that no retry can mend."""
        self._loop = asyncio.get_running_loop()
        self.started = time.monotonic()
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(signum, self.stop)
        self.writer.start()
        sealing = asyncio.ensure_future(self._seal_on_time())
        showing = asyncio.ensure_future(self._show(progress)) if progress is not None else None
        try:
            await self.fleet.run()
        finally:
            for task in filter(None, (sealing, showing)):
                task.cancel()
            await asyncio.gather(*filter(None, (sealing, showing)), return_exceptions=True)
            self._loop = None

    def follow(self, tickers: Iterable[str]) -> None:
        """From now on records these markets and no others."""
        wanted = dict.fromkeys(tickers)
        carried = self.fleet.tickers
        self.fleet.add(wanted)
        self.fleet.remove(carried - wanted.keys())

    def stop(self) -> None:
        """Ends the feeds; what is buffered is delivered by ``close``."""
        self.fleet.stop()

    def close(self) -> None:
        """Delivers everything buffered and closes the stores. Raises SinkError when one refused."""
        self.recorder.seal()
        self.writer.close()

    async def _seal_on_time(self) -> None:
        while True:
            await asyncio.sleep(self.settings.batch_flush_ns / 1e9)
            if not self.pool.pressed:  # else batches with little in them would take the last memory
                self.recorder.seal()

    async def _show(self, progress: Callable[[Recording], None]) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            progress(self)

    def _writer_failed(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self.stop)

    def summary(self) -> dict[str, int]:
        """The figures of the recording so far."""
        counts = self.recorder.counts
        rows = {sink.name: sink.rows for sink in self.sinks}
        return {
            "connections": self.fleet.connections,
            "markets": len(self.books.by_ticker),
            "frames_received": counts.frames,
            "events": counts.events,
            "snapshots": counts.snapshots,
            "deltas": counts.deltas,
            "gaps": counts.gaps,
            "gap_events": counts.gap_events,
            "frames_repeated": counts.repeated,
            "frames_foreign": counts.foreign,
            "frames_rejected": counts.rejected,
            "handovers": counts.handovers,
            "blackout_us": counts.blackout_us,
            "unknown_types": counts.unknown_types.total(),
            "unknown_keys": counts.unknown_keys.total(),
            "clickhouse_rows": rows.get("ClickHouse", 0),
            "parquet_rows": rows.get("Parquet", 0),
        }
