"""The writer is killed again and again in the middle of its work, and the recorder as a whole: each trade of
the exchange is in both stores once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds

from kalshi_fast.simulator.process import Simulator
from test_crash import Recorder, in_clickhouse, started

if TYPE_CHECKING:
    from pathlib import Path


async def exchange(directory: Path, seconds: int) -> Simulator:
    arguments = ["--dir", str(directory / "simulator"), "--markets", "20", "--rate", "3000"]
    arguments += ["--seconds", str(seconds), "--life", "0.2", "--port", "0"]
    return await Simulator.start(arguments)


def check_trades(directory: Path, simulator: Simulator, report: dict[str, Any]) -> None:
    wanted = set(simulator.tickers)
    traded = {ticker: count for ticker, count in report["traded"].items() if ticker in wanted}
    files = ds.dataset(directory / "parquet" / "trades", format="parquet").to_table()
    assert Counter(files.column("market_ticker").to_pylist()) == Counter(traded)
    ids = files.column("trade_id").to_pylist()
    assert len(set(ids)) == len(ids) > 50
    asked = in_clickhouse(directory, "SELECT toString(trade_id) FROM kalshi.trades")
    assert Counter(row[0] for row in asked) == Counter(ids)


def test_a_writer_that_is_killed_doubles_and_loses_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        rng = random.Random(7)
        simulator = await exchange(tmp_path, 6)
        try:
            recorder = Recorder(tmp_path, simulator)
            await started(tmp_path, recorder)
            for _ in range(4):
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                recorder.kill("writer")
            await asyncio.wait_for(simulator.finished(), 60)
            report = await simulator.report()
            await asyncio.sleep(0.5)
            assert recorder.recording, (tmp_path / "stderr").read_text()
            assert recorder.stop() == 0, (tmp_path / "stderr").read_text()
        finally:
            await simulator.stop()
        check_trades(tmp_path, simulator, report)
        for table, told in (("tickers", "tickers_sent"), ("market_lifecycle", "announcements_sent")):
            rows = ds.dataset(tmp_path / "parquet" / table, format="parquet").count_rows()
            assert [[str(rows)]] == in_clickhouse(tmp_path, f"SELECT count() FROM kalshi.{table}")
            assert rows == report[told] > 0

    asyncio.run(play())


def trades_stored(directory: Path) -> Counter[str]:
    """By market; also while the recorder runs."""
    sql = "SELECT market_ticker, count() FROM kalshi.trades GROUP BY market_ticker"
    return Counter({row[0]: int(row[1]) for row in in_clickhouse(directory, sql)})


async def caught_up(directory: Path, simulator: Simulator) -> Counter[str]:
    """Returns when the trades of all our markets are stored that the exchange tells of at first: those.
    What an interruption has left out is asked for two seconds later."""
    told = Counter((await simulator.report())["traded"])
    traded = Counter({ticker: told[ticker] for ticker in simulator.tickers})
    deadline = time.monotonic() + 60
    while missing := traded - await asyncio.to_thread(trades_stored, directory):
        assert time.monotonic() < deadline, missing
        await asyncio.sleep(0.1)
    return traded


def test_what_was_traded_while_nobody_recorded_is_made_good(tmp_path: Path) -> None:
    """Killed once, stopped once: the next one knows what is stored, and asks for the rest."""

    async def play() -> None:
        simulator = await exchange(tmp_path, 600)
        try:
            for end in ("killed", "stopped", "last"):
                recorder = Recorder(tmp_path, simulator)
                await started(tmp_path, recorder)
                if end == "last":
                    break
                await asyncio.sleep(1.0)
                if end == "killed":
                    recorder.kill("both")
                elif end == "stopped":
                    assert recorder.stop() == 0, (tmp_path / "stderr").read_text()
            traded = await caught_up(tmp_path, simulator)
            assert recorder.stop() == 0, (tmp_path / "stderr").read_text()
        finally:
            await simulator.stop()
        assert traded
        assert not traded - trades_stored(tmp_path), "those traded since then come on top"
        asked = in_clickhouse(
            tmp_path, "SELECT count(), uniqExact(trade_id), countIf(sid = 0) FROM kalshi.trades"
        )
        assert asked[0][0] == asked[0][1]
        assert int(asked[0][2]) > 0, "some came by REST"
        ids = ds.dataset(tmp_path / "parquet" / "trades", format="parquet").to_table(columns=["trade_id"])
        assert [str(len(ids)), str(len(set(ids.column(0).to_pylist())))] == asked[0][:2]

    asyncio.run(play())
