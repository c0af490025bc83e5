"""The stores hold exactly what the journal has, in the genuine engine and in real files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

import front
from frames import MARKET_ID, delta, snapshot
from journals import DAY_NS, NOON_NS, Source, deliver, mounted
from kalshi_fast import __version__
from kalshi_fast.errors import ConfigError, SinkError, UnreachableError
from kalshi_fast.journal import Journal, Point
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.ndjson import RejectSink
from kalshi_fast.sinks.parquet import ParquetSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

START = (
    snapshot(1, "A", yes=[("0.0800", "300.25"), ("0.0700", "1.00")], no=[("0.5400", "20.00")]),
    snapshot(2, "B", no=[("0.50", "1.00")]),
    delta(3, "0.0800", "-300.25", ts_ms=1669149841123),
    delta(4, "0.0805", "5.00", ts_ms=1669149841124),
)


def database(source: Source, connect: Callable[[], Client], name: str = "clickhouse") -> ClickHouseSink:
    return ClickHouseSink(connect, source.journal, source.position(name))


def test_rows_are_what_the_user_knows_in_cents_dollars_and_contracts(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    sink = database(source, open_database)
    source.feed(*START)
    deliver(sink)
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


def test_views_answer_what_people_ask(open_database: Callable[[], Client], tmp_path: Path) -> None:
    source, client = Source(tmp_path), open_database()
    sink = database(source, open_database)
    source.feed(*START)
    deliver(sink)
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
    source.feed(delta(7, "0.07", "1.00"))  # 5 and 6 are missing
    deliver(sink)
    assert client.query(book_at, parameters={"at": _moment(NOON_NS + 5000)}).result_rows == []
    assert {row[-1] for row in client.query(top).result_rows} == {0}
    source.feed(snapshot(8, "A"))
    deliver(sink)
    gaps = client.query("SELECT market_ticker, until IS NULL, first_missing_seq FROM gaps").result_rows
    assert set(gaps) == {("A", 0, 5), ("B", 1, 5)}
    assert client.query("SELECT count() FROM latest_levels WHERE market_ticker = 'A'").result_rows == [(0,)]


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{ns % 10**9:09d}"


def test_an_insert_whose_outcome_is_not_known_is_repeated_with_its_rows_and_stored_once(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    source.feed(*START)
    sink = database(source, open_database)
    begun = sink._position.point
    assert begun is not None
    sink._take()
    assert sink._point.until == source.journal.end
    token = sink._point.token
    sink.step()
    done = sink._position.point
    assert done is not None
    # As if we had died after the insert and before the position was written.
    sink._position.write(Point(begun.journal, begun.seq, until=done.seq, token=token))
    source.feed(delta(5, "0.0805", "1.00"))
    again = database(source, open_database)
    deliver(again)
    assert client.query("SELECT count(), uniq(seq) FROM orderbook_events").result_rows == [(9, 5)]
    assert client.query("SELECT count() FROM feed_health").result_rows == [(1,)]
    assert again.repaired == 0
    assert again.inserts == 3, "level states twice: of a version there is one; of the events the new one"


def test_rows_that_come_again_from_another_journal_are_there_already(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    """A journal brought back from a backup, a position that is lost, a database known by another address."""
    client = open_database()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        source = Source(tmp_path / name)
        source.feed(*START)
        sink = database(source, open_database)
        deliver(sink)
        source.feed(delta(5, "0.0805", "1.00", ts_ms=1669149841125) if name == "two" else snapshot(5, "B"))
        deliver(sink)
    assert client.query("SELECT count() FROM orderbook_events").result_rows == [(8 + 1 + 1,)]
    assert client.query("SELECT count() FROM feed_health").result_rows == [(1,)]


def test_what_a_table_has_lost_since_it_answered_is_found_at_the_next_start(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    sink = database(source, open_database)
    begun = sink._point
    source.feed(*START)
    deliver(sink)
    client.command("ALTER TABLE orderbook_events DELETE WHERE seq >= 3 SETTINGS mutations_sync = 1")
    client.command("ALTER TABLE feed_health DELETE WHERE 1 SETTINGS mutations_sync = 1")
    sink._position.write(begun)  # older than what was answered
    again = database(source, open_database)
    deliver(again)
    assert client.query("SELECT count(), uniqExact(seq) FROM orderbook_events").result_rows == [(8, 4)]
    assert client.query("SELECT count() FROM feed_health").result_rows == [(1,)]
    assert again.repaired == 2, "of feed_health nothing was there: an insert like any other"


def test_a_table_without_our_settings_is_looked_at_again_after_each_reconnect(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    client.command("ALTER TABLE orderbook_events RESET SETTING fsync_after_insert")
    sink = database(source, open_database)
    source.feed(*START)
    deliver(sink)
    source.feed(delta(5, "0.0805", "1.00"))
    deliver(sink)
    assert sink.rows == 9
    assert sink.done_seq == 0, "the journal keeps what a failure of the server's machine may take from it"
    client.command("ALTER TABLE orderbook_events DELETE WHERE seq >= 4 SETTINGS mutations_sync = 1")
    sink.reset()
    deliver(sink)
    assert client.query("SELECT count(), uniqExact(seq) FROM orderbook_events").result_rows == [(9, 5)]
    assert sink.repaired == 2
    client.command("ALTER TABLE orderbook_events DELETE WHERE seq = 2 SETTINGS mutations_sync = 1")
    deliver(database(source, open_database))
    assert client.query("SELECT count(), uniqExact(seq) FROM orderbook_events").result_rows == [(9, 5)]


def test_batches_with_new_markets_and_times_of_every_month_go_in_together(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source = Source(tmp_path, rows=7, tickers=[f"M-{n}" for n in range(1, 300)])
    client = open_database()
    frames = [snapshot(n, f"M-{n}", yes=[("0.50", "1.00")]) for n in range(1, 300)]
    months = [delta(300 + n, "0.50", "1.00", ticker="M-1", ts_ms=n * 2_600_000_000) for n in range(600)]
    source.feed(*frames, *months)
    assert source.journal.end > 100
    sink = database(source, open_database)
    sink.step()
    assert client.query("SELECT count(), uniq(market_ticker) FROM orderbook_events").result_rows == [
        (598 + 600, 299)
    ]


def test_a_new_recording_ends_the_levels_that_the_one_before_has_left(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    source.feed(*START)
    later = Source(tmp_path, journal=source.journal)
    later.now = source.now + 10_000
    later.feed(snapshot(1, "A", yes=[("0.0700", "2.00")]))
    levels = "SELECT market_ticker, side, price_e4, size_e2 FROM latest_levels ORDER BY ALL"
    for name in ("together", "again from the beginning"):
        deliver(database(source, open_database, name))
        assert client.query(levels).result_rows == [("A", "yes", 700, 200), ("B", "no", 5000, 100)]
    # B's book has been unknown since the first recorder ended: its rows say so.
    assert client.query("SELECT market_ticker FROM gaps WHERE until IS NULL").result_rows == [("B",)]


def test_a_store_that_refuses_keeps_its_place(open_database: Callable[[], Client], tmp_path: Path) -> None:
    source, client = Source(tmp_path), open_database()
    source.feed(*START)
    sink = database(source, open_database)
    sink.open()
    client.command("RENAME TABLE orderbook_events TO elsewhere")
    for _ in range(3):
        with pytest.raises(SinkError, match=r"ClickHouse takes no rows.*UNKNOWN_TABLE"):
            sink.step()
        source.feed(delta(source.journal.end + 4, "0.0805", "1.00"))
    assert (sink.rows, sink.done_seq) == (0, 0)
    client.command("RENAME TABLE elsewhere TO orderbook_events")
    deliver(sink)
    assert client.query("SELECT count(), uniq(seq) FROM orderbook_events").result_rows == [(11, 7)]
    assert sink.rows == 11
    assert sink.lags.count == 11


def test_inserts_come_further_apart_while_there_are_many_parts_to_merge(
    open_database: Callable[[], Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse, "PARTS_LOOK_S", 0.0)
    source, client = Source(tmp_path), open_database()
    sink = database(source, open_database)
    source.feed(*START)
    deliver(sink)
    assert sink._interval_s == clickhouse.MERGE_S
    client.command("SYSTEM STOP MERGES orderbook_events")
    intervals = []
    for seq in range(5, 160):
        source.feed(delta(seq, "0.0805", "1.00", ts_ms=1669149841124))
        deliver(sink)
        intervals.append(sink._interval_s)
    client.command("SYSTEM START MERGES orderbook_events")
    assert intervals == sorted(intervals)
    assert intervals[-1] >= 4 * clickhouse.MERGE_S
    client.command("OPTIMIZE TABLE orderbook_events FINAL")
    source.feed(delta(160, "0.0805", "1.00", ts_ms=1669149841124))
    deliver(sink)
    assert sink._interval_s == clickhouse.MERGE_S


def test_a_server_that_is_not_there_and_a_directory_that_cannot_be(tmp_path: Path, engine_url: str) -> None:
    with pytest.raises(UnreachableError, match=r"CLICKHOUSE_URL: http://127.0.0.1:9 does not answer"):
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
    return ParquetSink(directory, source.journal, source.position("parquet"), **settings)  # type: ignore[arg-type]


def stored(directory: Path, column: str = "seq") -> list[object]:
    """One column of all complete files, in the order of their names."""
    return [
        row[column]
        for path in sorted(directory.rglob("part-*"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def test_parquet_layout_content_and_metadata(tmp_path: Path) -> None:
    source = Source(tmp_path)
    sink = parquet(source, tmp_path)
    source.feed(*START)
    deliver(sink)
    assert list(tmp_path.rglob("part-*")) == [], "not under its name before it is complete"
    sink.close()
    (path,) = tmp_path.rglob("*.parquet")
    assert path == tmp_path / "orderbook" / "date=2024-10-04" / "part-120000_000001.parquet"
    assert list(tmp_path.rglob("*.tmp")) == []
    file = pq.ParquetFile(path)
    metadata = file.metadata.metadata
    assert metadata[b"kalshi_fast.schema_version"] == b"1"
    assert metadata[b"kalshi_fast.recorder"] == source.ring.recorder.hex.encode()
    assert metadata[b"kalshi_fast.version"] == __version__.encode()
    assert json.loads(metadata[b"kalshi_fast.ranges"]) == [[source.journal.id, 0, 0, 1, 0]]
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
    source = Source(tmp_path)
    source.now = 20_001 * DAY_NS - 5000  # 5 µs before midnight
    sink = parquet(source, tmp_path)
    source.feed(snapshot(1, "A"), *(delta(seq, "0.50", "1.00") for seq in range(2, 12)))
    deliver(sink)
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


def test_files_close_by_size_by_age_and_in_need_and_lose_nothing(tmp_path: Path) -> None:
    source, now = Source(tmp_path, rows=50), 0.0
    sink = ParquetSink(
        tmp_path,
        source.journal,
        source.position("parquet"),
        max_bytes=4096,
        max_secs=60,
        row_group_rows=64,
        clock=lambda: now,
    )
    source.feed(snapshot(1, "A"), *(delta(seq, "0.50", f"{seq}.{seq % 100:02d}") for seq in range(2, 3980)))
    source.feed(*(delta(seq, "0.50", "1.00") for seq in range(3980, 4000)))
    deliver(sink)
    by_size = len(sink.files)
    assert by_size > 2
    assert min(path.stat().st_size for path in sink.files) >= 4096
    held = sink.done_seq
    assert 0 < held < source.journal.end, "the journal keeps what is not in a complete file"
    sink.step()
    assert len(sink.files) == by_size
    now = 61.0
    sink.step()
    assert len(sink.files) == by_size + 1, "a quiet market's file is closed by its age"
    assert sink.done_seq == source.journal.end
    source.feed(delta(4000, "0.50", "1.00"))
    sink.step()
    sink.hurry = True
    sink.step()
    assert sink.done_seq == source.journal.end
    sink.close()
    assert stored(tmp_path) == list(range(1, 4001))
    assert sink.rows == 4000


def test_two_files_of_one_microsecond_get_two_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        source = Source(tmp_path / name)
        sink = parquet(source, tmp_path)
        source.feed(*START)
        deliver(sink)
        sink.close()
    names = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    assert names == ["part-120000_000001.parquet", "part-120000_000002.parquet"]


@pytest.mark.parametrize("midnight", [False, True])
def test_a_crash_between_rename_and_position_writes_nothing_twice(tmp_path: Path, *, midnight: bool) -> None:
    source = Source(tmp_path, rows=5)
    if midnight:
        source.now = 20_001 * DAY_NS - 8000
    source.feed(snapshot(1, "A"), *(delta(seq, "0.50", "1.00") for seq in range(2, 30)))
    sink = parquet(source, tmp_path)
    before = sink._events._position.point
    assert before is not None
    deliver(sink)
    sink.close()
    position = source.position("parquet")
    position.write(before)
    source.feed(*(delta(seq, "0.50", "1.00") for seq in range(30, 40)))
    again = parquet(source, tmp_path)
    jumps = 0
    while again.done_seq < source.journal.end:
        try:
            again.hurry = not again.step()
        except SinkError:  # behind its files
            jumps += 1
            again.reset()
    again.close()
    assert jumps == 1 + midnight
    assert sorted(stored(tmp_path)) == list(range(1, 40))  # type: ignore[type-var]


def test_what_was_not_complete_is_written_anew_after_a_crash(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.feed(*START)
    died = parquet(source, tmp_path)
    deliver(died)
    (left,) = tmp_path.rglob("*.tmp")
    bytes_left = left.read_bytes()
    died.reset()
    left.write_bytes(bytes_left)  # as a process that died there leaves it
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    sink = parquet(source, tmp_path)
    assert list(tmp_path.rglob("*.tmp")) == []
    deliver(sink)
    sink.close()
    assert stored(tmp_path) == [1, 1, 1, 1, 2, 2, 3, 4]


def test_a_directory_that_disappears_is_made_again_and_nothing_is_missing(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.feed(*START)
    sink = parquet(source, tmp_path)
    deliver(sink)
    shutil.rmtree(tmp_path / "orderbook")
    with pytest.raises(SinkError, match="Parquet takes no rows: No such file"):
        sink.close()
    sink.reset()
    source.feed(delta(5, "0.0805", "1.00"))
    deliver(sink)
    sink.close()
    assert stored(tmp_path) == [1, 1, 1, 1, 2, 2, 3, 4, 5]


def finish(sink: ParquetSink) -> None:
    """All rows are in complete files."""
    deliver(sink)
    sink.hurry = True
    sink.step()


def test_a_full_disk_is_waited_for_and_nothing_is_missing(tmp_path: Path) -> None:
    source = Source(tmp_path, rows=500)
    with mounted(tmp_path / "disk", "-o", "size=64k") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(60 * 1024))
        sink = parquet(source, disk)
        frames = (delta(seq, "0.50", f"{seq}.{seq * 37 % 100:02d}") for seq in range(2, 6000))
        source.feed(snapshot(1, "A"), *frames)
        for _ in range(3):
            with pytest.raises(SinkError, match="Parquet takes no rows: No space left"):
                finish(sink)
            sink.reset()
            assert list(disk.rglob("*.tmp")) == [], "what was begun is taken away"
        assert sink.done_seq == 0
        ballast.unlink()
        sink._events.max_bytes = 30_000
        deliver(sink)
        sink.close()
        assert stored(disk) == list(range(1, 6000))


def test_a_directory_on_a_disk_that_may_not_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "ro") as disk, pytest.raises(ConfigError, match="Read-only"):
        parquet(Source(tmp_path), disk)


def test_parquet_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"PARQUET_DIR: .* cannot be written"):
        parquet(Source(tmp_path), tmp_path / "file")


# --- rejected frames --------------------------------------------------------------------------------


def test_rejected_frames_are_kept_as_they_came_up_to_a_limit_and_once(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.feed(b"\xff\x00", b'{"type":"orderbook_delta","sid":1,"seq":1}', b"x" * 900)

    def keep(journal: Journal) -> RejectSink:
        rejects = RejectSink(tmp_path, journal, source.position("rejected"), max_bytes=700)
        sink = ParquetSink(
            tmp_path, journal, source.position("parquet"), max_bytes=10**9, max_secs=900, rejects=rejects
        )
        deliver(sink)
        return rejects

    rejects = keep(source.journal)
    assert (rejects.rows, rejects.dropped) == (2, 1)
    (path,) = (tmp_path / "rejected").iterdir()
    assert path.name == "2024-10-04.ndjson"
    kept = path.read_text()
    lines = [json.loads(line) for line in kept.splitlines()]
    assert lines[0]["payload_base64"] == "/wA="
    assert lines[1]["payload"] == '{"type":"orderbook_delta","sid":1,"seq":1}'
    assert lines[0]["conn_id"] == 77
    assert "expected" in lines[1]["reason"]
    # As if we had died in the middle of the next line: the part is cut off, and nothing comes twice.
    path.write_text(kept + '{"half": ')
    source.position("parquet").write(Point(source.journal.id, 0))
    keep(source.journal)
    assert path.read_text() == kept


def test_a_fault_ends_a_process_with_the_embedded_engine_at_once(tmp_path: Path) -> None:
    """The engine's own handlers would keep it for five minutes, in which nobody starts another. Asked for by
    the writer; opening the engine alone leaves the handlers of a process as they are."""
    code = (
        "import faulthandler, os, sys; from kalshi_fast.sinks import clickhouse;"
        "clickhouse.open_client(sys.argv[1], user='default', password='').command('SELECT 1');"
        "assert not faulthandler.is_enabled();"
        "clickhouse.let_faults_end_us(); os.abort()"
    )
    command = [sys.executable, "-c", code, f"chdb://{tmp_path}/engine"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == -signal.SIGABRT
    assert b"Fatal Python error: Aborted" in done.stderr
