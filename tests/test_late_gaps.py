"""A gap begins with the last good frame, however late the loss was noticed. Every reader of every store says
so, although the row stands behind later rows of other markets, also across midnight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import links
from frames import delta, snapshot
from journals import DAY_NS, NOON_NS, Source, deliver
from kalshi_fast._columns import GAP
from kalshi_fast.compact import compact
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.replaying.source import open_source
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.parquet import ParquetSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

S = 1_000_000_000
SILENT_S = 60  # of one connection, while the other one goes on


def record(directory: Path, begin_ns: int) -> tuple[Source, int]:
    """The connection of A and B falls silent, and its loss is noticed after 60 s of frames of C. Returns when
    its last good frame was received."""
    source = Source(directory, rows=50)
    other = links.link(source.recorder, ["C"], lambda: source.now)
    source.now = begin_ns
    links.grant(other, 78, source.now)
    source.feed(snapshot(1, "A", yes=[("0.0800", "1.00")]), snapshot(2, "B", yes=[("0.0900", "2.00")]))
    other.feed(snapshot(1, "C", yes=[("0.0700", "3.00")]), source.now + 1)
    source.feed(delta(3, "0.0800", "4.00", ticker="A"), every_ns=S)
    good_ns = source.now
    for seq in range(2, 2 + 4 * SILENT_S):
        source.now += S // 4
        other.feed(delta(seq, "0.0700", "1.00", ticker="C"), source.now)
        if seq % 10 == 0:
            source.feed()
    source.link.on_disconnected(source.now, "gone")
    source.now += S
    other.feed(delta(2 + 4 * SILENT_S, "0.0700", "1.00", ticker="C"), source.now)
    source.feed()
    return source, good_ns


def to_parquet(source: Source, directory: Path) -> Path:
    sink = ParquetSink(
        directory, source.journal, source.position("p"), max_bytes=1 << 30, max_secs=3600, row_group_rows=40
    )
    deliver(sink)
    sink.close()
    return directory


def check(where: object, good_ns: int, **options: str) -> None:
    """The rows come in the order of their times, and no book of the silent connection is known after its last
    good frame, at any moment that a replay may begin at."""
    with open_source(where, **options) as opened:  # type: ignore[arg-type]
        rows = [
            (ns, opened.tickers[ix], kind)
            for chunk in opened.chunks()
            for ns, ix, kind in zip(
                chunk.ingest_ns.tolist(), chunk.market_ix.tolist(), chunk.type.tolist(), strict=True
            )
        ]
    times = [ns for ns, _, _ in rows]
    assert times == sorted(times)
    assert len(rows) == 2 * 3 + 1 + 4 * SILENT_S + 2 + 1
    gaps = [(ticker, ns) for ns, ticker, kind in rows if kind == GAP]
    assert gaps == [("A", good_ns + 1), ("B", good_ns + 1)]
    for after_ns, known in ((0, {"A", "B", "C"}), (1, {"C"}), (S, {"C"}), ((SILENT_S - 1) * S, {"C"})):
        books = Replay(where, **options).book_at(good_ns + after_ns)  # type: ignore[arg-type]
        assert {ticker for ticker, book in books.items() if not book.stale} == known, after_ns
    only = Replay(where, end=good_ns + S, **options)  # type: ignore[arg-type]
    assert [event.ticker for event in only.events() if event.kind == GAP] == ["A", "B"]


@pytest.mark.parametrize("begin_ns", [NOON_NS, NOON_NS + DAY_NS // 2 - 30 * S], ids=["noon", "midnight"])
def test_files_and_journal(tmp_path: Path, begin_ns: int) -> None:
    source, good_ns = record(tmp_path, begin_ns)
    check(source.journal.directory, good_ns)
    directory = to_parquet(source, tmp_path / "parquet")
    check(directory, good_ns)
    days = sorted((directory / "orderbook").glob("date=*"))
    assert len(days) == (1 if begin_ns == NOON_NS else 2)
    for report in compact(days, quiet=True):
        assert report.error is None
    check(directory, good_ns)
    first = Replay(days[0]).book_at(good_ns + S)
    assert {ticker for ticker, book in first.items() if not book.stale} == {"C"}, "a day stands alone"


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_the_database(tmp_path: Path, open_database: Callable[[], Client], engine_url: str) -> None:
    source, good_ns = record(tmp_path, NOON_NS)
    deliver(ClickHouseSink(open_database, source.journal, source.position("c")))
    client = open_database()
    check(engine_url, good_ns, database=client.database or "")
    since = client.query(
        "SELECT market_ticker, toUnixTimestamp64Nano(since) FROM gaps ORDER BY 1"
    ).result_rows
    assert list(since) == [("A", good_ns + 1), ("B", good_ns + 1)]
    at = client.query(
        "SELECT DISTINCT market_ticker FROM book_at(at = {at:String})",
        parameters={"at": f"{(good_ns + S) // S}.{(good_ns + S) % S:09d}"},
    ).result_rows
    assert list(at) == [("C",)]


def test_rows_out_of_order_that_are_no_gaps_are_still_refused(tmp_path: Path) -> None:
    """See test_replay_sources for all the ways of that; here it is the rows beside a late gap."""
    from kalshi_fast.errors import ReplayError
    from replay_model import some_rows, table_of, write

    table = table_of(some_rows(1200))
    path = tmp_path / "orderbook/date=2026-11-18/part-110640_000000.parquet"
    order = [*range(600), *range(900, 1200), *range(600, 900)]
    write(path, table.take(order), row_group=300)
    with pytest.raises(ReplayError, match="order of ingest_ts"):
        list(Replay(tmp_path).events())
