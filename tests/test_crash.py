"""``kill -9`` at random instants: afterwards both stores hold the same events, each once, and none is wrong.

A real exchange simulator plays on while the recorder's processes die and are started again. Its checkpoints
are the truth: from the stored rows alone every book must be as the exchange had it, or be known to be
unknown. What had reached the journal when a process died must be in the stores at the end.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds
import pytest

from kalshi_fast import writing
from kalshi_fast.checkpoints import compare
from kalshi_fast.journal import Cursor, Journal
from kalshi_fast.simulator.process import Simulator
from recorders import record

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKETS = 40
SEEDS = range(int(os.environ.get("KALSHI_FAST_CRASH_SEEDS", "3")))
NAMES = ("conn_id", "sid", "seq", "market_ticker", "type", "side", "price_e4", "qty_e2")


class Recorder:
    """The command, as a user runs it."""

    def __init__(self, directory: Path, simulator: Simulator) -> None:
        self.process = record(
            directory,
            simulator,
            CLICKHOUSE_URL=f"chdb://{directory}/clickhouse",
            WS_BACKOFF_SECS="0.1",
            PARQUET_MAX_SECS="1",
            BATCH_ROWS="300",
        )

    @property
    def writer(self) -> int | None:
        """The writer process's id, while there is one."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            children += [
                c for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()
            ]
        except OSError:
            return None
        return int(children[0]) if children else None

    def kill(self, what: str) -> None:
        writer = self.writer
        if what in ("writer", "both") and writer is not None:
            _kill(writer)
        if what in ("capture", "both"):
            _kill(self.process.pid)
            self.process.communicate()
        if what == "capture, then the writer" and writer is not None:
            _kill(self.process.pid)
            self.process.communicate()
            time.sleep(0.05)
            _kill(writer)

    @property
    def recording(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return self.process.returncode


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def journalled(directory: Path) -> Counter[tuple[Any, ...]]:
    """The rows that the journal of a directory holds, read from a copy of it."""
    copy = directory / f"copy-{uuid.uuid4().hex[:6]}"
    shutil.copytree(directory / "journal", copy)
    journal = Journal(copy)
    found: Counter[tuple[Any, ...]] = Counter()
    cursor = Cursor(journal, 0)
    for entry in cursor.take(0, journal.end):
        if entry.events is not None:
            found.update(rows(entry.names.events(entry.events)))
    cursor.close()
    journal.close()
    shutil.rmtree(copy)
    return found


def rows(table: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    return zip(*(table.column(name).to_pylist() for name in NAMES), strict=True)


def in_clickhouse(directory: Path, query: str) -> list[list[str]]:
    """In a process of its own: the engine's directory is there for one at a time, and this process has
    another."""
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_fast", "query", "--format", "TSV", "--env-file", os.devnull),
            *("--clickhouse-url", f"chdb://{directory}/clickhouse", query),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    return [line.split("\t") for line in answer.stdout.decode().splitlines()]


def test_a_writer_started_again_does_not_wait_for_wakes_that_came_before_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"{}\n" + 3 * b".")  # it is slow to start, and batches do not wait for it
        theirs.settimeout(10)
        assert writing._first_line(theirs) == b"{}"


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_dies_each_event_is_stored_once_or_the_gap_is(tmp_path: Path, seed: int) -> None:
    asyncio.run(play(tmp_path, random.Random(seed)))


async def play(directory: Path, rng: random.Random) -> None:
    arguments = ["--dir", str(directory / "simulator"), "--markets", str(MARKETS), "--rate", "6000"]
    arguments += ["--seconds", "600", "--checkpoints", "0.2", "--unique-sids", "--port", "0"]
    simulator = await Simulator.start(arguments)
    held: Counter[tuple[Any, ...]] = Counter()
    restarted = 0
    try:
        for _ in range(4):
            recorder = Recorder(directory, simulator)
            await started(directory, recorder)
            what = rng.choice(("capture", "writer", "both", "capture, then the writer"))
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            recorder.kill(what)
            if what == "writer":
                await asyncio.sleep(rng.uniform(0.0, 1.5))
                assert recorder.recording, "the death of the writer does not end the recording"
                restarted += 1
                recorder.kill(rng.choice(("both", "capture")))
            held |= journalled(directory)
        recorder = Recorder(directory, simulator)
        await started(directory, recorder)
        await asyncio.sleep(1.0)
        truth = (await simulator.report())["books"]
        assert recorder.stop() == 0, (directory / "stderr").read_text()
    finally:
        await simulator.stop()
    check(directory, held)
    assert truth.keys() == set(simulator.tickers)


async def started(directory: Path, recorder: Recorder) -> None:
    """Until it records: its stores are open (before that it cannot do without its writer), and its journal
    grows."""
    before, ready = journal_bytes(directory), opened(directory) + 1
    deadline = time.monotonic() + 60
    while journal_bytes(directory) <= before or opened(directory) < ready:
        assert recorder.recording, (directory / "stderr").read_text()
        assert time.monotonic() < deadline, (directory / "stderr").read_text()
        await asyncio.sleep(0.02)


def opened(directory: Path) -> int:
    """How often a recorder has said that its stores are open."""
    return (directory / "stderr").read_text().count("queries are answered at")


def journal_bytes(directory: Path) -> int:
    sizes = []
    for path in (directory / "journal").glob("*.journal"):
        with suppress(FileNotFoundError):
            sizes.append((int(path.stem), path.stat().st_size))
    return max(sizes, default=(0, 0))[1] + 10**9 * len(sizes)


def check(directory: Path, held: Counter[tuple[Any, ...]]) -> None:
    files = ds.dataset(directory / "parquet" / "orderbook", format="parquet").to_table(columns=list(NAMES))
    stored = Counter(rows(files))
    doubled = [row for row, count in stored.items() if count > 1]
    assert doubled == []
    missing = held - stored
    assert not missing, f"{len(missing)} rows that were in the journal are in no file: {list(missing)[:3]}"
    quoted = ", ".join(f"toString({name})" for name in NAMES)
    in_database = Counter(
        tuple(row) for row in in_clickhouse(directory, f"SELECT {quoted} FROM kalshi.orderbook_events")
    )
    assert in_database == Counter({tuple(map(str, row)): count for row, count in stored.items()})
    order = ds.dataset(directory / "parquet" / "orderbook", format="parquet").to_table(
        columns=["market_ticker", "sid", "seq", "type", "side", "price_e4", "qty_e2", "ingest_ts"]
    )
    order = order.sort_by("ingest_ts")
    columns = [order.column(name).to_pylist() for name in order.schema.names[:7]]
    result = compare(directory / "simulator" / "checkpoints.jsonl", zip(*columns, strict=True))
    assert result.wrong == 0, result.examples
    assert result.exact > 0
    known = in_clickhouse(
        directory,
        "SELECT count() FROM (SELECT market_ticker, argMax(type, (ingest_ts, seq)) AS mark FROM"
        " kalshi.orderbook_events WHERE type IN ('clear', 'gap') GROUP BY market_ticker)"
        " WHERE mark = 'clear'",
    )
    assert known == [["0"]], "when nobody records, no book is known"
