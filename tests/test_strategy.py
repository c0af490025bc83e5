"""One strategy class, unchanged: live, against the simulator, and in replays, with the same log."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import frames
import links
from kalshi_fast import Strategy, replay
from kalshi_fast._columns import GAP, SNAPSHOT
from kalshi_fast.books import Books
from kalshi_fast.config import load
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.recording import Recording
from kalshi_fast.simulator.process import Simulator
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


def subscribed_link(rows: int = 100) -> tuple[Link, Recorder]:
    """A link that carries market A, with a known book; batches have so many rows."""
    pool = LocalPool(rows, 10)
    recorder = Recorder(Books(), pool, pool.release, seal_rows=rows)
    link = links.link(recorder, ["A"], lambda: 0)
    links.grant(link, 7, 0)
    link.feed(frames.snapshot(1, yes=[("0.4500", "10.00")]), 1)
    return link, recorder
