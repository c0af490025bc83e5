"""One strategy class, unchanged: live, against the simulator, and in replays, with the same log."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import frames
import links
from kalshi_fast import Strategy, replay
from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT, EventColumns
from kalshi_fast.books import Books
from kalshi_fast.channels.rows import TradeRow
from kalshi_fast.config import load
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.recording import Recording
from kalshi_fast.simulator.process import Simulator
from kalshi_fast.strategy import Driver
from replay_model import digest, some_rows, table_of, write

if TYPE_CHECKING:
    import pytest

    from kalshi_fast._replay import Event
    from kalshi_fast.link import Link

ROWS = [row for row in some_rows(2500, seed=5) if row[0] != GAP]


class Log(Strategy):
    """What it is told, by market: the change and the book behind it. Times and numbers are left out, since
    they are another play's."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, int, int, int, str | None]]] = {}
        self.books = 0

    def _note(self, event: Event) -> None:
        change = (event.kind, event.side, event.price_e4, event.qty_e2)
        self.seen.setdefault(event.ticker, []).append((*change, digest(event.book)))

    on_snapshot = on_delta = _note

    def on_book(self, event: Event) -> None:
        self.books += event.known


async def record(original: Path, directory: Path, strategy: Strategy) -> None:
    """The recording, played by the simulator's process and recorded anew, the strategy looking on."""
    arguments = [
        "--dir",
        str(directory / "simulator"),
        "--port",
        "0",
        "--no-tls",
        "--recording",
        str(original),
    ]
    simulator = await Simulator.start(arguments)
    try:
        told = {
            "PROD_KEYID": simulator.key_id,
            "PROD_KEYFILE": simulator.key_file,
            "MARKET_TICKERS": ",".join(simulator.tickers),
            "WS_URL": simulator.url,
            "CLICKHOUSE_URL": "off",
            "PARQUET_DIR": str(directory / "parquet"),
            "JOURNAL_DIR": str(directory / "journal"),
        }
        settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
        recording = Recording(settings, strategy)
        recording.open()
        try:
            task = asyncio.ensure_future(recording.run())
            sent = await simulator.finished()
            deadline = time.monotonic() + 30
            while recording.recorder.counts.frames < sent and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            recording.stop()
            await task
        finally:
            recording.close()
    finally:
        await simulator.stop()


def test_one_class_live_simulated_and_in_replay(tmp_path: Path) -> None:
    original = tmp_path / "original"
    write(original / "orderbook" / "date=2026-11-18" / "part-110640_000000.parquet", table_of(ROWS))
    first = Log()
    replay(original).drive(first)
    assert sum(map(len, first.seen.values())) == sum(1 for row in ROWS if row[0] != SNAPSHOT)

    live = Log()
    asyncio.run(record(original, tmp_path, live))
    again = Log()
    replay(tmp_path / "parquet").drive(again)
    assert live.seen == again.seen
    assert live.books == again.books
    # On subscribing the simulator sends every book as it is before the play, which is an empty one.
    assert {ticker: events[1:] for ticker, events in live.seen.items()} == first.seen


def test_a_strategy_that_fails_does_not_end_the_recording(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Strategy):
        calls = 0

        def on_delta(self, event: Event) -> None:
            self.calls += 1
            raise ZeroDivisionError

    strategy = Failing()
    link, recorder = subscribed_link()
    driver = recorder.attach(strategy)
    with caplog.at_level(logging.ERROR):
        for seq in range(2, 6):
            link.feed(frames.delta(seq, "0.4500", "1.00"), seq)
            recorder.look()
    assert strategy.calls == 1
    assert isinstance(driver.error, ZeroDivisionError)
    assert "the strategy failed" in caplog.text
    assert recorder.counts.deltas == 4


def test_nothing_is_told_before_its_frame_is_whole() -> None:
    """Batches of three rows: a snapshot goes over several of them, and is one event all the same."""
    log = Log()
    link, recorder = subscribed_link(rows=3)
    recorder.attach(log)
    levels = [(f"0.{n:02d}00", "5.00") for n in range(10, 20)]
    link.feed(frames.snapshot(2, yes=levels), 10)
    recorder.look()
    assert [event[0] for event in log.seen["A"]] == [SNAPSHOT] * 2
    assert log.books == 2
    link.feed(frames.delta(3, "0.1000", "1.00"), 11)
    assert len(log.seen["A"]) == 2, "not before the end of the read"
    recorder.look()
    assert len(log.seen["A"]) == 3


class Order(Strategy):
    """Receive times, in the order in which it is told of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def _book(self, event: Event) -> None:
        self.seen.append(("book", event.ingest_ns))

    on_snapshot = on_delta = on_gap = _book

    def on_trade(self, trade: TradeRow, /) -> None:
        self.seen.append(("trade", trade.ingest_ns))


def trade_at(ns: int) -> TradeRow:
    return TradeRow(0, 0, 0, str(uuid.UUID(int=ns)), "M", "yes", False, 5000, 100, ns // 1000, ns)


def test_a_trade_is_told_before_the_book_rows_that_came_later_also_when_they_fill_a_batch() -> None:
    """Trades by REST are kept between two reads, and the next read seals a batch in its middle."""
    strategy = Order()
    driver = Driver(strategy, ["M"])

    def buffer(*times: int) -> EventColumns:
        columns = EventColumns(8)
        for seq, ns in enumerate(times):
            columns.add(CLEAR if seq == 0 else DELTA, 1, 1, seq + 1, 0, 0, 0, 100, 5, 0, ns)
        return columns

    driver.look(buffer(50), sealed=True, whole=True)
    for ns in (100, 110, 120):
        driver.keep(trade_at(ns))
    driver.look(buffer(150, 200, 200), sealed=True, whole=False)
    driver.keep(trade_at(210))
    driver.look(buffer(200, 220), sealed=False, whole=True)
    assert strategy.seen == sorted(strategy.seen, key=lambda one: (one[1], one[0] == "book"))
    assert len(strategy.seen) == 10


def test_a_trade_does_not_overtake_a_snapshot_whose_end_is_not_written_yet() -> None:
    strategy = Order()
    driver = Driver(strategy, ["M"])
    columns = EventColumns(8)
    columns.add(CLEAR, 1, 1, 1, 0, 0, 0, 0, 0, 0, 100)
    columns.add(SNAPSHOT, 1, 1, 1, 0, 0, 0, 100, 5, 0, 100)
    for ns in (90, 150, 160):
        driver.keep(trade_at(ns))
    driver.look(columns, sealed=True, whole=False)
    assert strategy.seen == [("trade", 90)]
    driver.look(EventColumns(8), sealed=False, whole=True)
    assert [ns for _, ns in strategy.seen] == [90, 100, 150, 160]


def subscribed_link(rows: int = 100) -> tuple[Link, Recorder]:
    """A link that carries market A, with a known book; batches have so many rows."""
    pool = LocalPool(rows, 10)
    recorder = Recorder(Books(), pool, pool.release, seal_rows=rows)
    link = links.link(recorder, ["A"], lambda: 0)
    links.grant(link, 7, 0)
    link.feed(frames.snapshot(1, yes=[("0.4500", "10.00")]), 1)
    return link, recorder
