"""Live equals replay: the hash of every book behind every frame of a run full of faults, computed while it
was recorded and again from Parquet, from ClickHouse and from the journal."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import replay_model
from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.batch import pack_extra
from kalshi_fast.books import Books
from kalshi_fast.config import load
from kalshi_fast.dial import tls_context
from kalshi_fast.fleet import Fleet
from kalshi_fast.journal import Journal, Position
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.replaying.verify import verify
from kalshi_fast.ring import SealedSlot
from kalshi_fast.simulator.faults import chaos
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.parquet import ParquetSink
from kalshi_fast.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clickhouse_connect.driver.client import Client

    from kalshi_fast._replay import Event
    from kalshi_fast.batch import Batch

SECONDS = 6
MARKETS = 16
RATE = 400
History = dict[str, list[tuple[int, str | None]]]


class Watcher(Strategy):
    """Writes down what it is told, and what the books are then."""

    def __init__(self) -> None:
        self.log: defaultdict[str, list[Any]] = defaultdict(list)

    def _note(self, what: str, event: Event) -> None:
        change = (event.side, event.price_e4, event.qty_e2)
        self.log[event.ticker].append((what, event.ingest_ns, change, replay_model.digest(event.book)))

    def on_snapshot(self, event: Event) -> None:
        self._note("snapshot", event)

    def on_delta(self, event: Event) -> None:
        self._note("delta", event)

    def on_gap(self, event: Event) -> None:
        self._note("gap", event)

    def on_book(self, event: Event) -> None:
        assert event.known


class Live:
    """A recorder that seals behind every frame, so that the books behind each can be looked at."""

    def __init__(self, journal: Journal) -> None:
        self.books = Books()
        self.pool = LocalPool(20_000, 1000)
        self.history: defaultdict[str, list[tuple[int, str | None]]] = defaultdict(list)
        self._rows: Counter[str] = Counter()
        self._journal = journal
        self.recorder = Recorder(self.books, self.pool, self._store, seal_rows=1)

    def _store(self, batch: Batch) -> None:
        columns = batch.events.arrays["market_ix"][: batch.events.n].tolist()
        told = Counter(self.books.tickers[ix] for ix in columns)
        self._rows += told
        for ticker in told:
            book = self.books.by_ticker[ticker].book
            self.history[ticker].append((self._rows[ticker], replay_model.digest(book)))
        self._journal.append(
            SealedSlot(
                batch.number,
                batch.events.n,
                batch.levels.n,
                batch.names,
                {name: column[: batch.events.n] for name, column in batch.events.arrays.items()},
                {name: column[: batch.levels.n] for name, column in batch.levels.arrays.items()},
                pack_extra(batch.health, batch.rejected),
            ),
            lambda start, stop: self.books.tickers[start:stop],
            lambda start, stop: self.books.ids[start:stop],
        )
        self._journal.commit()
        self.pool.release(batch)


async def play(directory: Path, seed: int, live: Live) -> dict[str, int]:
    source = SyntheticMarkets(MARKETS, seed)
    async with exchange(
        directory,
        source,
        rate=RATE,
        seconds=SECONDS,
        seed=seed,
        faults=chaos(seed, SECONDS),
        unique_sids=True,
        heartbeat_s=0.3,
    ) as running:
        told = {
            "WS_URL": running.url,
            "MARKET_TICKERS": ",".join(source.books),
            "SUBSCRIPTION_MARKETS": "7",
            "CONNECTION_MARKETS": "30",
            "HOT_STANDBY": "on" if seed % 2 else "off",
            "WS_IDLE_SECS": "0.3",
            "WS_BACKOFF_SECS": "0.05",
            "WS_BACKOFF_MAX_SECS": "0.3",
            "WS_REFUSED_SECS": "0.1",
        }
        settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
        signer = Signer.from_file(KEY_ID, directory / "client.pem")
        fleet = Fleet(settings, signer, live.recorder, live.pool, tls_context(directory / "ca.pem"))
        task = asyncio.ensure_future(fleet.run())
        await asyncio.wait_for(running.finished.wait(), 60)
        await asyncio.sleep(0.3)
        fleet.stop()
        await task
        live.recorder.look()
        live.recorder.seal()
        return dict(running.stats.faults)


def deliver(sink: ParquetSink | ClickHouseSink) -> None:
    while sink.step():
        continue


def history(replay: Replay) -> tuple[History, int]:
    """Ticker → the hash of its book behind every row."""
    found: defaultdict[str, list[tuple[int, str | None]]] = defaultdict(list)
    books: defaultdict[str, replay_model.ReferenceBook] = defaultdict(replay_model.ReferenceBook)
    total = 0
    with replay.open() as source:
        for ticker, kind, side, price, qty in replay_model.rows_of(source.chunks(), source.tickers):
            books[ticker].apply(kind, side, price, qty)
            found[ticker].append((len(found[ticker]) + 1, books[ticker].digest()))
            total += 1
    return dict(found), total


@pytest.mark.clock
@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_live_equals_replay(tmp_path: Path, open_database: Callable[[], Client], engine_url: str) -> None:
    """With a hot standby, into all stores; and with single connections, into files."""

    async def run() -> Sequence[tuple[Path, Journal, Live, Watcher, dict[str, int]]]:
        async def one(seed: int) -> tuple[Path, Journal, Live, Watcher, dict[str, int]]:
            directory = tmp_path / str(seed)
            directory.mkdir()
            journal = Journal(directory / "journal", fsync="off")
            live, watcher = Live(journal), Watcher()
            live.recorder.attach(watcher)
            return directory, journal, live, watcher, await play(directory, seed, live)

        return await asyncio.gather(one(3), one(4))

    client = open_database()
    for number, (directory, journal, live, watcher, faults) in enumerate(asyncio.run(run())):
        assert sum(faults.values()) > 2, faults
        parquet = ParquetSink(
            directory / "parquet",
            journal,
            Position(directory / "p", fsync=False),
            max_bytes=1 << 30,
            max_secs=3600,
            row_group_rows=500,
        )
        deliver(parquet)
        parquet.close()
        places: list[tuple[Any, dict[str, str]]] = [(directory / "parquet", {}), (directory / "journal", {})]
        if number == 0:
            deliver(ClickHouseSink(open_database, journal, Position(directory / "c", fsync=False)))
            places.append((engine_url, {"database": client.database or ""}))
        journal.close()
        check(live, watcher, places)


def check(live: Live, watcher: Watcher, places: list[tuple[Any, dict[str, str]]]) -> None:
    states_seen = [digest for states in live.history.values() for _, digest in states]
    assert states_seen.count(None) > 5, "some books were unknown now and then"
    assert len(states_seen) - states_seen.count(None) > 500
    for where, options in places:
        recording = Replay(where, **options)
        states, rows = history(recording)
        assert rows == live.recorder.counts.events, where
        for ticker, seen in live.history.items():
            there = dict(states[ticker])
            assert [(row, there[row]) for row, _ in seen] == seen, f"{ticker} from {where}"
        compiled = Watcher()
        recording.drive(compiled)
        assert compiled.log == watcher.log, where
        report = verify(recording)
        assert report.violations == 0, (where, report.examples)
        assert report.rows == rows
