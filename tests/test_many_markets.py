"""Ten thousand markets on one connection, hundreds of them changed while it runs; and an exchange that lets
one subscription carry only so many. Real sockets, the simulator with one sid for each channel and connection.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.books import Books
from kalshi_fast.config import load
from kalshi_fast.fleet import Fleet
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kalshi_fast.batch import Batch
    from kalshi_fast.simulator.exchange import Exchange

RATE = 2000
SECONDS = 120.0


class Recording:
    def __init__(self, directory: Path, url: str, tickers: Iterable[str], **told: str) -> None:
        flags = {"WS_URL": url, "MARKET_TICKERS": ",".join(tickers), **told}
        settings = load(flags, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
        self.pool = LocalPool(20_000, 40_000)
        self.books = Books()
        self.recorder = Recorder(self.books, self.pool, self.store, seal_rows=20_000)
        signer = Signer.from_file(KEY_ID, directory / "client.pem")
        self.fleet = Fleet(settings, signer, self.recorder, self.pool, None)

    def store(self, batch: Batch) -> None:
        self.pool.release(batch)

    def wrong(self, running: Exchange, tickers: Iterable[str]) -> list[str]:
        """Of these markets those whose book is unknown or not the exchange's."""
        found, source = [], running.source.books
        for ticker in tickers:
            market = self.books.by_ticker.get(ticker)
            if market is None or market.book.stale:
                found.append(ticker)
                continue
            yes, no = (dict(levels) for levels in market.book.ladders())
            if (yes, no) != source[ticker].sides:
                found.append(ticker)
        return found

    def unknown(self, tickers: Iterable[str]) -> bool:
        by_ticker = self.books.by_ticker
        return any(t not in by_ticker or by_ticker[t].book.stale for t in tickers)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("out_of_order", [False, True], ids=["in order", "out of order"])
def test_ten_thousand_markets_on_one_connection(tmp_path: Path, *, out_of_order: bool) -> None:
    async def run() -> None:
        source = SyntheticMarkets(10_500, 1)
        everything = list(source.books)
        first, later = everything[:10_000], everything[10_000:]
        async with exchange(tmp_path, source, tls=False, rate=RATE, out_of_order=out_of_order) as running:
            recording = Recording(tmp_path, running.url, first)
            task = asyncio.ensure_future(recording.fleet.run())
            await until(lambda: not recording.unknown(first))
            gone = random.Random(1).sample(first, 500)
            kept = [ticker for ticker in everything if ticker not in set(gone)]
            recording.fleet.remove(gone)
            recording.fleet.add(later)
            await until(lambda: not recording.unknown(kept))
            (client,) = running.clients
            (subscription,) = client.subscriptions.values()
            await until(lambda: subscription.tickers == set(kept))
            running.end_play()
            await until(lambda: not recording.wrong(running, kept))
            assert all(recording.books.by_ticker[ticker].book.stale for ticker in gone)
            stats, counts = running.stats, recording.recorder.counts
            assert stats.connections == 1
            assert stats.commands["subscribe"] == 1
            # Portions of 1,000 and both changes. What comes before ``subscribed`` is asked for, by hundreds.
            assert stats.commands["update_subscription"] <= 9 + 2 + (10 if out_of_order else 0)
            assert stats.commands_refused == {}
            assert (counts.gaps, counts.rejected, counts.repeated) == (0, 0, 0)
            recording.fleet.stop()
            await task

    asyncio.run(run())


def test_a_limit_of_the_exchange_is_found_once(tmp_path: Path) -> None:
    async def run() -> None:
        source = SyntheticMarkets(1200, 1)
        tickers = list(source.books)
        async with exchange(tmp_path, source, tls=False, rate=RATE, market_limit=400) as running:
            recording = Recording(tmp_path, running.url, tickers)
            task = asyncio.ensure_future(recording.fleet.run())
            await until(lambda: not recording.unknown(tickers))
            running.end_play()
            await until(lambda: not recording.wrong(running, tickers))
            stats = running.stats
            carried = Counter(len(s.tickers) for c in running.clients for s in c.subscriptions.values())
            assert carried == {400: 3}
            assert stats.connections == 3
            assert sum(stats.commands_refused.values()) <= 5
            granted = stats.commands["subscribe"] - sum(stats.commands_refused.values())
            assert granted <= 3, "one for each connection"
            assert recording.recorder.counts.gaps == 0
            recording.fleet.stop()
            await task

    asyncio.run(run())
