"""The writer is killed again and again in the middle of its work: each trade, ticker and announcement of the
exchange is in both stores once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from kalshi_fast.simulator.process import Simulator
from test_crash import Recorder, in_clickhouse, started

if TYPE_CHECKING:
    from pathlib import Path


def test_a_writer_that_is_killed_doubles_and_loses_nothing(tmp_path: Path) -> None:
    asyncio.run(play(tmp_path, random.Random(7)))


async def play(directory: Path, rng: random.Random) -> None:
    arguments = ["--dir", str(directory / "simulator"), "--markets", "20", "--rate", "3000", "--seconds", "8"]
    simulator = await Simulator.start([*arguments, "--life", "0.2", "--port", "0"])
    try:
        recorder = Recorder(directory, simulator)
        await started(directory, recorder)
        for _ in range(4):
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            recorder.kill("writer")
        await simulator.finished()
        report = await simulator.report()
        await asyncio.sleep(0.5)
        assert recorder.recording, (directory / "stderr").read_text()
        assert recorder.stop() == 0, (directory / "stderr").read_text()
    finally:
        await simulator.stop()
    wanted = set(simulator.tickers)
    traded = {ticker: count for ticker, count in report["traded"].items() if ticker in wanted}
    files = ds.dataset(directory / "parquet" / "trades", format="parquet").to_table()
    assert Counter(files.column("market_ticker").to_pylist()) == Counter(traded)
    ids = files.column("trade_id").to_pylist()
    assert len(set(ids)) == len(ids) > 50
    asked = in_clickhouse(directory, "SELECT toString(trade_id) FROM kalshi.trades")
    assert Counter(row[0] for row in asked) == Counter(ids)
    for table, told in (("tickers", "tickers_sent"), ("market_lifecycle", "announcements_sent")):
        rows = ds.dataset(directory / "parquet" / table, format="parquet").count_rows()
        assert [[str(rows)]] == in_clickhouse(directory, f"SELECT count() FROM kalshi.{table}")
        assert rows == report[told] > 0
