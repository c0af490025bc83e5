"""A store that goes away: recording goes on, the journal grows and drains, and every row is there once.

The ClickHouse server is the genuine engine behind an HTTP front that can be switched off, and that can lose
the answer to an insert which has happened. The recorder is the command itself, in its own processes.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds

import front
from kalshi_fast.simulator.process import Simulator
from kalshi_fast.sinks import clickhouse
from recorders import record

if TYPE_CHECKING:
    import subprocess

DATABASE = "outage"


def start(directory: Path, simulator: Simulator, url: str, **settings: str) -> subprocess.Popen[bytes]:
    server = {
        "CLICKHOUSE_URL": url,
        "CLICKHOUSE_USER": front.USER,
        "CLICKHOUSE_PASSWORD": front.PASSWORD,
        "CLICKHOUSE_DATABASE": DATABASE,
    }
    return record(directory, simulator, **(server | settings))


def resident_kb(pid: int) -> int:
    """Of a process and its children."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        pids += [int(child) for child in (task / "children").read_text().split()]
    status = [Path(f"/proc/{one}/status").read_text() for one in pids]
    return sum(int(line.split()[1]) for text in status for line in text.splitlines() if "VmRSS" in line)


def used(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "journal").glob("*.journal"))


def test_clickhouse_away_for_the_middle_third_and_answers_lost(tmp_path: Path, engine_url: str) -> None:
    with front.running(engine_url) as server:
        figures, seen = asyncio.run(play(tmp_path, server))
        client = clickhouse.connect(server.url, user=front.USER, password=front.PASSWORD, database=DATABASE)
        rows, different = client.query(
            "SELECT count(), uniqExact(conn_id, sid, seq, market_ticker, type, side, price_e4)"
            " FROM orderbook_events"
        ).result_rows[0]
        client.close()
    assert figures["gaps"] == 0, "the exchange never had to wait for us"
    assert rows == different == figures["events"] == figures["clickhouse_rows"]
    files = ds.dataset(tmp_path / "parquet" / "orderbook", format="parquet")
    assert files.count_rows() == rows
    assert seen["away"] > seen["before"] + 1_000_000, "the journal has grown"
    assert figures["journal_bytes"] < seen["away"], "and has drained"
    assert seen["memory away"] < seen["memory before"] + 150_000, "and memory has not"
    assert figures["writer_restarts"] == 0


async def play(directory: Path, server: front.Front) -> tuple[dict[str, Any], dict[str, int]]:
    third_s = 4.0
    arguments = ["--dir", str(directory / "simulator"), "--markets", "100", "--rate", "50000"]
    simulator = await Simulator.start([*arguments, "--seconds", "600", "--port", "0"])
    seen = {}
    try:
        # Small segments (an eighth of the bound), so that what is delivered leaves the disk at once.
        bounds = {"JOURNAL_MAX_BYTES": "48000000", "PARQUET_MAX_SECS": "1"}
        recorder = start(directory, simulator, server.url, **bounds)
        while used(directory) < 1_000_000:
            assert recorder.poll() is None, (directory / "stderr").read_text()
            await asyncio.sleep(0.05)
        server.fail_next("cut_after", times=2)
        server.fail_next("500_after", times=1)
        await asyncio.sleep(third_s)
        seen["before"], seen["memory before"] = used(directory), resident_kb(recorder.pid)
        server.away()
        await asyncio.sleep(third_s)
        seen["away"], seen["memory away"] = used(directory), resident_kb(recorder.pid)
        server.back()
        server.fail_next("garbage_after", times=1)
        await asyncio.sleep(third_s)
        recorder.terminate()
        output, _ = await asyncio.to_thread(recorder.communicate, None, 100)
        assert recorder.returncode == 0, (directory / "stderr").read_text()
    finally:
        await simulator.stop()
    return json.loads(output.splitlines()[-1]), seen


def test_started_while_the_server_is_away_and_ended_while_it_is(tmp_path: Path, engine_url: str) -> None:
    with front.running(engine_url) as server:
        server.away()
        events = asyncio.run(briefly(tmp_path, server.url, expected=1))
        said = (tmp_path / "stderr").read_text()
        assert "does not answer" in said
        assert "batches are in the journal and will be delivered by the next recording" in said
        assert front.PASSWORD not in said
        server.back()
        client = clickhouse.connect(server.url, user=front.USER, password=front.PASSWORD, database="later")
        events += asyncio.run(briefly(tmp_path, server.url, expected=0))
        assert client.query("SELECT count() FROM orderbook_events").result_rows == [(events,)]
        client.close()


async def briefly(directory: Path, url: str, *, expected: int) -> int:
    """A short recording; how many events it left in Parquet, which was there all the time."""
    before = parquet_rows(directory)
    arguments = ["--dir", str(directory / "simulator"), "--markets", "10", "--rate", "2000"]
    simulator = await Simulator.start([*arguments, "--seconds", "600", "--port", "0"])
    try:
        recorder = start(directory, simulator, url, CLICKHOUSE_DATABASE="later")
        deadline, there = time.monotonic() + 30, used(directory)
        while used(directory) < there + 200_000:
            assert recorder.poll() is None, (directory / "stderr").read_text()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        recorder.terminate()
        await asyncio.to_thread(recorder.communicate, None, 100)
        assert recorder.returncode == expected, (directory / "stderr").read_text()
    finally:
        await simulator.stop()
    return parquet_rows(directory) - before


def parquet_rows(directory: Path) -> int:
    root = directory / "parquet" / "orderbook"
    return int(ds.dataset(root, format="parquet").count_rows()) if root.is_dir() else 0


def test_a_journal_at_its_bound_pauses_the_recording_and_ends_it_in_time(
    tmp_path: Path, engine_url: str
) -> None:
    """ClickHouse never comes: journal and buffers are full, reading pauses; and a signal still ends it."""
    with front.running(engine_url) as server:
        server.away()
        asyncio.run(fill(tmp_path, server.url))
    said = (tmp_path / "stderr").read_text()
    assert "JOURNAL_MAX_BYTES (1048576) is reached" in said
    assert "reading from the exchange pauses" in said
    assert used(tmp_path) <= 1_048_576
    assert "are lost)" in said


async def fill(directory: Path, url: str) -> None:
    arguments = ["--dir", str(directory / "simulator"), "--markets", "10", "--rate", "20000"]
    simulator = await Simulator.start([*arguments, "--seconds", "600", "--port", "0"])
    try:
        bounds = {"JOURNAL_MAX_BYTES": "1048576", "BUFFER_MAX_ROWS": "40000"}
        recorder = start(directory, simulator, url, **bounds)
        deadline = time.monotonic() + 60
        while "is reached" not in (directory / "stderr").read_text():
            assert recorder.poll() is None, (directory / "stderr").read_text()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        before = resident_kb(recorder.pid)
        await asyncio.sleep(3)
        assert resident_kb(recorder.pid) < before + 20_000, "memory is bounded too"
        recorder.terminate()
        await asyncio.to_thread(recorder.communicate, None, 120)
        assert recorder.returncode == 1, (directory / "stderr").read_text()
    finally:
        await simulator.stop()
