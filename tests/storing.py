"""A recorder's writer without an exchange, for tests that kill it: ``python storing.py DIR [ROUNDS]``.

Takes up what the last one has left (journal, ClickHouse, Parquet), delivers it, compares what a query of each
store says with the journal, of which nothing is trimmed, and prints that as one line of JSON. Then it records
ROUNDS batches with both stores in step, a line after each commit, and ends, or is killed on the way. An error
of a store or of the journal is met as ``delivery`` and ``writing`` meet it: said, and tried again.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import links
from frames import delta, snapshot
from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.books import Books
from kalshi_fast.compact import event_files
from kalshi_fast.errors import JournalError, KalshiFastError
from kalshi_fast.journal import Cursor, Journal, Position
from kalshi_fast.pool import BatchPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.ring import Ring
from kalshi_fast.sinks.clickhouse import ClickHouseSink, connect
from kalshi_fast.sinks.parquet import ParquetSink
from kalshi_fast.sinks.readback import hashes, plain, selected

MARKETS = [f"M-{n}" for n in range(8)]
TRIES = 200


class Storing:
    """``directory``: journal, engine and files."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.rng = random.Random(seed)
        self.errors: Counter[str] = Counter()
        fsync = os.environ.get("STORING_FSYNC", "always")
        self.journal = self.insist(
            lambda: Journal(directory / "journal", fsync=fsync, segment_bytes=1 << 17, max_bytes=1 << 30)
        )
        self.clickhouse: ClickHouseSink = self.insist(
            lambda: ClickHouseSink(self.connect, self.journal, self.position("clickhouse"))
        )
        self.parquet: ParquetSink = self.insist(
            lambda: ParquetSink(
                directory / "parquet",
                self.journal,
                self.position("parquet"),
                max_bytes=1 << 16,
                max_secs=0,
                row_group_rows=256,
            )
        )

    def connect(self) -> Any:  # noqa: ANN401
        url = os.environ.get("STORING_URL", f"chdb://{self.directory}/clickhouse")
        return connect(url, user="default", password="", database="k")

    def position(self, name: str) -> Position:
        return Position(self.directory / "journal" / f"{name}.position", fsync=self.journal.fsync == "always")

    def insist(self, what: Any, *sinks: Any) -> Any:  # noqa: ANN401
        """As delivery and writing do: again after a failure of a known kind."""
        for _ in range(TRIES):
            try:
                return what()
            except (KalshiFastError, OSError) as error:
                self.errors[type(error).__name__] += 1
                for sink in sinks:
                    sink.reset()
                if hasattr(self, "journal"):
                    with suppress(JournalError):
                        self.journal.commit()
                time.sleep(0.002)
        raise RuntimeError(f"{TRIES} times: {self.errors}")

    def deliver(self) -> None:
        for sink in (self.clickhouse, self.parquet):
            while self.insist(sink.step, sink):
                pass

    def complete(self) -> None:
        """As at a clean stop: stored, and read."""

        def prove() -> None:
            while self.clickhouse.step():
                pass
            self.clickhouse.flush()
            self.clickhouse._prove(every=True)

        self.deliver()
        self.insist(prove, self.clickhouse)

        def finish() -> None:
            self.parquet.hurry = True
            self.parquet.step()

        while self.parquet.done_seq < self.journal.end:
            self.insist(finish, self.parquet)

    def verdict(self) -> dict[str, Any]:
        """What a query of each store says, against the journal."""
        ours = []
        cursor = Cursor(self.journal, 0)
        for entry in cursor.take(0, self.journal.end):
            if entry.events is not None:
                rows = pa.Table.from_batches([entry.names.events(entry.events)])
                ours.append(hashes(plain(rows)))
        cursor.close()
        client = self.clickhouse._open_client
        wanted = np.sort(np.concatenate(ours)) if ours else np.zeros(0, np.uint64)
        table = client.query_arrow(
            f"SELECT {selected(EVENT_SCHEMA, 'orderbook_events')} FROM orderbook_events", use_strings=True
        )
        database = np.sort(hashes(table.select(EVENT_SCHEMA.names))) if table.num_rows else wanted[:0]
        files = []
        for path in sorted((self.directory / "parquet" / "orderbook").glob("date=*")):
            files += [hashes(plain(pq.ParquetFile(file).read())) for file in event_files(path)]
        stored = np.sort(np.concatenate(files)) if files else wanted[:0]
        order = (
            "SELECT market_ticker, argMax(type, (ingest_ts, seq)) FROM orderbook_events"
            " WHERE type IN ('clear', 'gap') GROUP BY 1"
        )
        books = {str(market): str(mark) for market, mark in client.query(order).result_rows}
        health = client.query(
            "SELECT count(), uniqExact(ts, conn_id, event, detail, seq, sid) FROM feed_health"
        )
        return {
            "rows": len(wanted),
            "clickhouse": difference(wanted, database),
            "parquet": difference(wanted, stored),
            "known": sorted(market for market, mark in books.items() if mark == "clear"),
            "health_doubled": health.result_rows[0][0] - health.result_rows[0][1],
            "repaired": self.clickhouse.repaired,
            "errors": dict(self.errors),
            "end": self.journal.end,
        }

    def record(self, rounds: int) -> None:
        """Batches of a recorder of its own; a commit is told."""
        ring = Ring.create(200, 1000, uuid.uuid4())
        books = Books()
        pool = BatchPool(ring, books.tickers, books.ids, version=self.journal.floor_ns)
        recorder = Recorder(books, pool, pool.deliver, seal_rows=200)
        now = max(time.time_ns(), self.journal.floor_ns + 1)
        self.insist(lambda: self.journal.begin(ring.recorder))
        link = links.link(recorder, MARKETS, lambda: now)
        links.grant(link, self.rng.getrandbits(62) + 1, now)
        seq = 0
        for n in range(rounds):
            for _ in range(self.rng.randrange(1, 60)):
                now += self.rng.randrange(0, 2_000_000)
                seq += 1
                if seq <= len(MARKETS):
                    frame = snapshot(seq, MARKETS[seq - 1], yes=[("0.50", "100000.00"), ("0.40", "1.00")])
                else:
                    frame = delta(
                        seq,
                        "0.50",
                        f"{self.rng.choice((-1, 1))}.00",
                        ticker=self.rng.choice(MARKETS),
                        ts_ms=now // 1_000_000,
                    )
                link.feed(frame, now)
            recorder.seal()
            while (batch := ring.peek()) is not None:

                def append(batch: Any = batch) -> None:  # noqa: ANN401
                    self.journal.append(batch, ring.tickers, ring.ids)
                    self.journal.commit()

                self.insist(append)
                ring.release()
            say(f"committed {self.journal.end}")
            if n % 3 == 0:
                self.deliver()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def difference(wanted: Any, found: Any) -> dict[str, int]:  # noqa: ANN401
    """Two sorted lists of hashes as multisets."""
    a, b = Counter(wanted.tolist()), Counter(found.tolist())
    return {"missing": (a - b).total(), "too_many": (b - a).total()}


def main(directory: Path, rounds: int, seed: int) -> None:
    logging.basicConfig(level=logging.WARNING)
    storing = Storing(directory, seed)
    storing.insist(storing.journal.end_recorder)
    storing.complete()
    say(json.dumps(storing.insist(storing.verdict, storing.clickhouse)))
    try:
        storing.record(rounds)
        storing.complete()
    except JournalError as error:
        say(f"ended: {error}")
    say(f"errors {json.dumps(storing.errors)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
