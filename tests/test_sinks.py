"""The stores hold exactly the rows that were given, in the genuine engine and in real files."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

import front
import links
from frames import MARKET_ID, delta, snapshot
from kalshi_fast import __version__
from kalshi_fast.batch import ArrowViews, Batch, BatchPool
from kalshi_fast.books import Books
from kalshi_fast.errors import ConfigError, SinkError
from kalshi_fast.recorder import Recorder
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.parquet import ParquetSink
from kalshi_fast.sinks.rejects import RejectSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

DAY_NS = 86_400_000_000_000
NOON_NS = 20_000 * DAY_NS + DAY_NS // 2  # 2024-10-04 12:00 UTC


class Source:
    """Batches from a real recorder."""

    def __init__(self, rows: int = 100, tickers: Iterable[str] = ("A", "B")) -> None:
        self.books = Books()
        self.views = ArrowViews(self.books.tickers, self.books.ids)
        self.batches: list[Batch] = []
        pool = BatchPool(rows, 1000)
        self.recorder = Recorder(self.books, pool, self.batches.append, seal_rows=rows)
        self.now = NOON_NS
        self.link = links.link(self.recorder, tickers, lambda: self.now)
        links.grant(self.link, 77, self.now)

    def feed(self, *payloads: bytes, every_ns: int = 1000) -> list[Batch]:
        for payload in payloads:
            self.now += every_ns
            self.link.feed(payload, self.now)
        self.recorder.seal()
        done = self.batches[:]
        self.batches.clear()
        return done


START = (
    snapshot(1, "A", yes=[("0.0800", "300.25"), ("0.0700", "1.00")], no=[("0.5400", "20.00")]),
    snapshot(2, "B", no=[("0.50", "1.00")]),
    delta(3, "0.0800", "-300.25", ts_ms=1669149841123),
    delta(4, "0.0805", "5.00", ts_ms=1669149841124),
)


def test_rows_are_what_the_user_knows_in_cents_dollars_and_contracts(
    open_database: Callable[[], Client],
) -> None:
    source, client = Source(), open_database()
    sink = ClickHouseSink(client, source.views, recorder_id="r")
    sink.write(source.feed(*START))
    assert sink.rows == 8
    rows = client.query(
        "SELECT type, side, price, price_dollars, qty, seq, market_id, toUnixTimestamp64Micro(ts)"
        " FROM orderbook_events WHERE market_ticker = 'A' ORDER BY seq, side, price"
    ).result_rows
    D = Decimal  # noqa: N806
    assert [row[:6] for row in rows] == [
        ("clear", "yes", D("0"), D("0"), D("0"), 1),
        ("snapshot", "yes", D("7"), D("0.07"), D("1"), 1),
        ("snapshot", "yes", D("8"), D("0.08"), D("300.25"), 1),
        ("snapshot", "no", D("54"), D("0.54"), D("20"), 1),
        ("delta", "yes", D("8"), D("0.08"), D("-300.25"), 3),
        ("delta", "yes", D("8.05"), D("0.0805"), D("5"), 4),
    ]
    assert {str(row[6]) for row in rows} == {MARKET_ID}
    assert rows[4][7] == 1669149841123000
    levels = client.query(
        "SELECT side, price, size FROM latest_levels WHERE market_ticker = 'A' ORDER BY price DESC"
    ).result_rows
    assert levels == [("no", D("54"), D("20")), ("yes", D("8.05"), D("5")), ("yes", D("7"), D("1"))]
    assert client.query("SELECT event, conn_id FROM feed_health").result_rows == [("connect", 77)]


def test_views_answer_what_people_ask(open_database: Callable[[], Client]) -> None:
    source, client = Source(), open_database()
    sink = ClickHouseSink(client, source.views, recorder_id="r")
    sink.write(source.feed(*START))
    D = Decimal  # noqa: N806
    top = (
        "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size, spread, exact FROM best_bid_ask"
    )
    assert client.query(f"{top} ORDER BY market_ticker").result_rows == [
        ("A", D("0.0805"), D("5"), D("0.46"), D("20"), D("0.3795"), 1),
        ("B", None, None, D("0.5"), D("1"), None, 1),
    ]
    ladder = "SELECT side, price_dollars, size, cumulative_size FROM ladder WHERE market_ticker = 'A'"
    assert client.query(ladder).result_rows == [
        ("yes", D("0.0805"), D("5"), D("5")),
        ("yes", D("0.07"), D("1"), D("6")),
        ("no", D("0.54"), D("20"), D("20")),
    ]
    at = {"at": _moment(NOON_NS + 1500)}
    book_at = "SELECT market_ticker, side, price_dollars, size FROM book_at(at = {at:String})"
    assert client.query(book_at, parameters=at).result_rows == [
        ("A", "yes", D("0.08"), D("300.25")),
        ("A", "yes", D("0.07"), D("1")),
        ("A", "no", D("0.54"), D("20")),
    ]
    assert client.query(book_at, parameters={"at": _moment(NOON_NS + 4000)}).result_rows == [
        ("A", "yes", D("0.0805"), D("5")),
        ("A", "yes", D("0.07"), D("1")),
        ("A", "no", D("0.54"), D("20")),
        ("B", "no", D("0.5"), D("1")),
    ]
    sink.write(source.feed(delta(7, "0.07", "1.00")))  # 5 and 6 are missing
    assert client.query(book_at, parameters={"at": _moment(NOON_NS + 5000)}).result_rows == []
    assert {row[-1] for row in client.query(top).result_rows} == {0}
    sink.write(source.feed(snapshot(8, "A")))
    gaps = client.query("SELECT market_ticker, until IS NULL, first_missing_seq FROM gaps").result_rows
    assert set(gaps) == {("A", 0, 5), ("B", 1, 5)}
    assert client.query("SELECT count() FROM latest_levels WHERE market_ticker = 'A'").result_rows == [(0,)]


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{ns % 10**9:09d}"


def test_an_insert_repeated_with_its_token_is_stored_once(open_database: Callable[[], Client]) -> None:
    source, client = Source(), open_database()
    batches = source.feed(*START)
    for _ in range(3):
        ClickHouseSink(client, source.views, recorder_id="r").write(batches)
    assert client.query("SELECT count() FROM orderbook_events").result_rows == [(8,)]
    ClickHouseSink(client, source.views, recorder_id="another").write(batches)
    assert client.query("SELECT count() FROM orderbook_events").result_rows == [(16,)]


def test_batches_with_new_markets_and_times_of_every_month_go_in_together(
    open_database: Callable[[], Client],
) -> None:
    source, client = Source(rows=7, tickers=[f"M-{n}" for n in range(1, 300)]), open_database()
    frames = [snapshot(n, f"M-{n}", yes=[("0.50", "1.00")]) for n in range(1, 300)]
    months = [delta(300 + n, "0.50", "1.00", ticker="M-1", ts_ms=n * 2_600_000_000) for n in range(600)]
    batches = source.feed(*frames, *months)
    assert len(batches) > 100
    ClickHouseSink(client, source.views, recorder_id="r").write(batches)
    assert client.query("SELECT count(), uniq(market_ticker) FROM orderbook_events").result_rows == [
        (598 + 600, 299)
    ]


def test_a_new_recording_forgets_the_levels_of_the_one_before(open_database: Callable[[], Client]) -> None:
    source, client = Source(), open_database()
    sink = ClickHouseSink(client, source.views, recorder_id="r")
    sink.write(source.feed(*START))
    later = Source()
    again = ClickHouseSink(client, later.views, recorder_id="later")
    later.now = source.now + 10_000
    again.forget_levels(["A"], later.now)
    assert client.query("SELECT DISTINCT market_ticker FROM latest_levels").result_rows == [("B",)]
    again.write(later.feed(snapshot(1, "A", yes=[("0.0700", "2.00")])))
    rows = client.query(
        "SELECT side, price_e4, size_e2 FROM latest_levels WHERE market_ticker = 'A'"
    ).result_rows
    assert rows == [("yes", 700, 200)]


def test_a_refusing_store_is_asked_again_and_then_told(open_database: Callable[[], Client]) -> None:
    source, client = Source(), open_database()
    client.command("DROP TABLE orderbook_events")
    waits: list[float] = []
    sink = ClickHouseSink(client, source.views, recorder_id="r", sleep=waits.append)
    with pytest.raises(SinkError, match=r"ClickHouse takes no rows.*UNKNOWN_TABLE"):
        sink.write(source.feed(*START))
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert sink.rows == 0


def test_a_server_that_is_not_there_and_a_directory_that_cannot_be(tmp_path: Path, engine_url: str) -> None:
    with pytest.raises(SinkError, match=r"CLICKHOUSE_URL: http://127.0.0.1:9 cannot be opened"):
        clickhouse.open_client("http://127.0.0.1:9", user="default", password="")
    with front.server(engine_url) as url, pytest.raises(SinkError, match=r"cannot be opened.*516") as caught:
        clickhouse.open_client(url, user=front.USER, password="hunter2")
    assert "hunter2" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        clickhouse.open_client(f"chdb://{tmp_path}/file/db", user="default", password="")


# --- Parquet ----------------------------------------------------------------------------------------


def parquet(source: Source, directory: Path, **options: int) -> ParquetSink:
    settings = {"max_bytes": 10**9, "max_secs": 900, **options}
    return ParquetSink(directory, source.views, recorder="rec-1", **settings)  # type: ignore[arg-type]


def test_parquet_layout_content_and_metadata(tmp_path: Path) -> None:
    source = Source()
    sink = parquet(source, tmp_path)
    sink.write(source.feed(*START))
    assert [path.suffix for path in tmp_path.rglob("part-*")] == [], (
        "not under its name before it is complete"
    )
    sink.close()
    (path,) = tmp_path.rglob("*.parquet")
    assert path == tmp_path / "orderbook" / "date=2024-10-04" / "part-120000_000001.parquet"
    assert list(tmp_path.rglob("*.tmp")) == []
    file = pq.ParquetFile(path)
    metadata = file.metadata.metadata
    assert metadata[b"kalshi_fast.schema_version"] == b"1"
    assert metadata[b"kalshi_fast.recorder"] == b"rec-1"
    assert metadata[b"kalshi_fast.version"] == __version__.encode()
    assert metadata[b"kalshi_fast.batches"] == b"1-1"
    column = file.metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert file.metadata.row_group(0).column(9).is_stats_set
    rows = file.read().to_pylist()
    assert [
        (row["type"], row["market_ticker"], row["side"], row["price_e4"], row["qty_e2"]) for row in rows
    ] == [
        ("clear", "A", "yes", 0, 0),
        ("snapshot", "A", "yes", 800, 30_025),
        ("snapshot", "A", "yes", 700, 100),
        ("snapshot", "A", "no", 5400, 2000),
        ("clear", "B", "yes", 0, 0),
        ("snapshot", "B", "no", 5000, 100),
        ("delta", "A", "yes", 800, -30_025),
        ("delta", "A", "yes", 805, 500),
    ]
    assert rows[0]["market_id"] == MARKET_ID


def test_no_file_spans_two_dates(tmp_path: Path) -> None:
    source = Source()
    source.now = 20_001 * DAY_NS - 5000  # 5 µs before midnight
    sink = parquet(source, tmp_path)
    sink.write(source.feed(snapshot(1, "A"), *(delta(seq, "0.50", "1.00") for seq in range(2, 12))))
    sink.close()
    files = sorted(tmp_path.rglob("*.parquet"))
    assert [path.parent.name for path in files] == ["date=2024-10-04", "date=2024-10-05"]
    assert files[1].name == "part-000000_000000.parquet"
    counts = []
    for path in files:
        days = {row["ingest_ts"].value // DAY_NS for row in pq.ParquetFile(path).read().to_pylist()}
        assert len(days) == 1
        counts.append(pq.ParquetFile(path).metadata.num_rows)
    assert counts == [4, 7]
    assert sink.rows == 11


def test_files_close_by_size_and_by_age_and_lose_nothing(tmp_path: Path) -> None:
    source, now = Source(rows=50), 0.0
    sink = ParquetSink(
        tmp_path,
        source.views,
        recorder="r",
        max_bytes=4096,
        max_secs=60,
        row_group_rows=64,
        clock=lambda: now,
    )
    frames = [snapshot(1, "A"), *(delta(seq, "0.50", f"{seq}.{seq % 100:02d}") for seq in range(2, 1000))]
    sink.write(source.feed(*frames))
    by_size = len(sink.files)
    assert by_size > 2
    assert min(path.stat().st_size for path in sink.files) >= 4096
    sink.tick()
    assert len(sink.files) == by_size
    now = 61.0
    sink.tick()
    assert len(sink.files) == by_size + 1
    sink.write(source.feed(delta(1000, "0.50", "1.00")))
    sink.close()
    stored = [row["seq"] for path in sink.files for row in pq.ParquetFile(path).read().to_pylist()]
    assert stored == list(range(1, 1001))
    assert sink.rows == len(stored)


def test_two_files_of_one_microsecond_get_two_names(tmp_path: Path) -> None:
    for _ in range(2):
        source = Source()
        sink = parquet(source, tmp_path)
        sink.write(source.feed(*START))
        sink.close()
    names = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    assert names == ["part-120000_000001.parquet", "part-120000_000002.parquet"]


def test_parquet_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"PARQUET_DIR: .* cannot be written"):
        parquet(Source(), tmp_path / "file")


# --- rejected frames --------------------------------------------------------------------------------


def test_rejected_frames_are_kept_as_they_came_up_to_a_limit(tmp_path: Path) -> None:
    source = Source()
    sink = RejectSink(tmp_path, max_bytes=700)
    sink.write(source.feed(b"\xff\x00", b'{"type":"orderbook_delta","sid":1,"seq":1}', b"x" * 900))
    (path,) = (tmp_path / "rejected").iterdir()
    assert path.name == "2024-10-04.ndjson"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["payload_base64"] == "/wA="
    assert lines[1]["payload"] == '{"type":"orderbook_delta","sid":1,"seq":1}'
    assert lines[0]["conn_id"] == 77
    assert "expected" in lines[1]["reason"]
    assert (sink.rows, sink.dropped) == (2, 1)


def test_a_directory_that_disappears_is_one_sentence(tmp_path: Path) -> None:
    source = Source()
    sink = parquet(source, tmp_path)
    shutil.rmtree(tmp_path / "orderbook")
    with pytest.raises(SinkError, match="Parquet takes no rows: No such file"):
        sink.write(source.feed(*START))
