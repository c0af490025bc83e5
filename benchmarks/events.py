"""Event tables for the storage benchmark: the real recordings, and synthetic markets through our recorder."""

from __future__ import annotations

import random
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast import wire
from kalshi_fast.arrow import EVENT_SCHEMA, STORED_EVENTS, Names, stored
from kalshi_fast.batch import Batch
from kalshi_fast.bench.workload import N_MARKETS
from kalshi_fast.books import NIL_ID, Books
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import CHANNEL, Session
from kalshi_fast.simulator.frames import snapshot_body
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from pathlib import Path

_START_NS = 1_795_000_000_123_456_789


def synthetic_events(n_deltas: int, per_second: int = 5_000) -> pa.Table:
    """Random arrivals, times of the exchange in ms, a few ms on the way; frames of one read share a time."""
    source, rng = SyntheticMarkets(N_MARKETS, seed=1), random.Random(1)
    books, batches = Books(), list[Batch]()
    recorder = Recorder(books, LocalPool(2000, 1_000_000), batches.append, seal_rows=2000)
    link = Link(recorder, Session(set(source.books), clock=lambda: 0, rng=random.Random(1)))
    link.on_connected(_START_NS, _START_NS)
    link.session.on_subscribed(wire.Subscribed(1, wire.ChannelSid(CHANNEL, 1)))
    frame = b'{"type":"orderbook_%b","sid":1,"seq":%d,"msg":%b}'
    for seq, book in enumerate(source.books.values(), 1):
        link.feed(frame % (b"snapshot", seq, snapshot_body(book)), _START_NS + seq * 20_000)
    sent_ns, read_ns = _START_NS, _START_NS + (N_MARKETS + 1) * 20_000
    for seq in range(N_MARKETS + 1, N_MARKETS + 1 + n_deltas):
        sent_ns += int(rng.expovariate(per_second / 1e9))
        arrived_ns = sent_ns + 2_000_000 + int(rng.expovariate(1 / 400_000))
        if arrived_ns > read_ns + 150_000:
            read_ns = arrived_ns
        link.feed(frame % (b"delta", seq, source.step(sent_ns).body), read_ns)
    recorder.seal()
    assert recorder.counts.rejected == recorder.counts.gaps == 0
    names = Names(books.tickers, books.ids)
    parts = [
        names.events(stored(STORED_EVENTS, batch.events.arrays, batch.events.n))
        for batch in batches
        if batch.events.n
    ]
    # Joined, since a copy must not depend on the batches' memory.
    return pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()


def recorded_events(directory: Path) -> pa.Table:
    """The rows as our recorder would have stored them.

    Those files have microseconds: the nanoseconds, which cost us something, are made up. As our recorder
    does, a market keeps the id that its snapshots told, and a snapshot is one moment with a clear row.
    """
    rng = random.Random(7)
    ids: dict[str, str] = {}
    rows: list[tuple[Any, ...]] = []
    last_seq, conn_id, open_snapshot, read_ns = 0, 0, None, 0
    for file in sorted(directory.rglob("*.parquet")):
        for row in pq.ParquetFile(file).read().to_pylist():
            seq, ticker = row["seq"], row["market_ticker"]
            ids[ticker] = row["market_id"] or ids.get(ticker, NIL_ID)
            snapshot = (ticker, seq) if row["type"] == "snapshot" else None
            if snapshot is None or snapshot != open_snapshot:
                read_ns = _unix_us(row["ingest_ts"]) * 1000 + rng.randrange(1000)
            if seq < last_seq or not rows:
                conn_id = read_ns - 300_000_000
            head = (conn_id, row["sid"], seq, ids[ticker], ticker)
            tail = (_unix_us(row["ts"]), read_ns)
            if snapshot is not None and snapshot != open_snapshot:
                rows.append(("clear", *head, "yes", 0, 0, *tail))
            rows.append((row["type"], *head, row["side"], row["price"] * 100, row["qty"] * 100, *tail))
            last_seq, open_snapshot = seq, snapshot
    columns = zip(EVENT_SCHEMA, zip(*rows, strict=True), strict=True)
    return pa.table([_column(values, field.type) for field, values in columns], schema=EVENT_SCHEMA)


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def _unix_us(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
