"""What is recorded beside the books comes out of every source as it went in, each trade once, in order."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import shutil
from contextlib import nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import channels
import front
from channels import cf_value, event, grant, ticker, trade, trade_id
from client import exchange
from frames import MARKET_ID, delta, frame, snapshot
from journals import DAY_NS, Source, deliver
from kalshi_fast import LifecycleRow, RawFrame, ReferenceRow, Strategy, TickerRow, TradeRow, replay, wire
from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast._replay import Event
from kalshi_fast.arrow import SCHEMA_VERSION
from kalshi_fast.channels.rows import NIL_ID, SCHEMAS, arrow
from kalshi_fast.channels.streams import Streams
from kalshi_fast.cli import main
from kalshi_fast.errors import FieldError, ReplayError
from kalshi_fast.interleave import TABLES
from kalshi_fast.recording import Recording
from kalshi_fast.replaying import database
from kalshi_fast.replaying.beside import BACK_NS, BesideReader
from kalshi_fast.replaying.files import ReplayWarning
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.replaying.verify import summarise
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.ndjson import RawSink
from kalshi_fast.sinks.parquet import HISTORIES, ParquetSink
from replay_model import table_of, write, write_rows
from test_market_life import settings_for, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.interleave import ChannelRow

START_NS = 1_795_000_000_000_000_000
DATE = "date=2026-11-18"


class Log(Strategy):
    """What it is told, in order; raw frames only as ``RawLog``, since a database has none."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def _book(self, event: Event) -> None:
        self.seen.append(told(event))

    on_snapshot = on_delta = on_gap = _book

    def _row(self, row: ChannelRow) -> None:
        self.seen.append(row)

    on_trade = on_ticker = on_lifecycle = on_reference = _row


class RawLog(Log):
    on_raw = Log._row


def told(one: Event | ChannelRow) -> Any:  # noqa: ANN401
    """What is left of an event when the next one has come."""
    if isinstance(one, Event):
        return one.ingest_ns, one.ticker, one.kind, one.side, one.price_e4, one.qty_e2
    return one


# --- a recorder's own rows, in all the places where they can be -------------------------------------------


def fill(source: Source, watcher: Strategy | None = None) -> None:
    """Frames of all channels over two days, several of them in one read, in one journal with books."""
    streams = Streams(source.recorder, ("A", "B"))
    raw = channels.link(streams, lambda: source.now, raw=["fill"])
    raw.session.channels = ("fill",)
    raw.on_connected(9, source.now)
    (command,) = channels.commands(raw.session)
    raw.feed(wire.encode(wire.Subscribed(command.id, wire.ChannelSid("fill", 3))), source.now)
    other = channels.link(streams, lambda: source.now, reference=True)
    grant(other, 8, source.now)
    if watcher is not None:
        source.recorder.attach(watcher)
    source.feed(snapshot(1, "A", yes=[("0.0800", "1.00")]))
    source.recorder.look()
    for seq in range(1, 40):
        if seq == 20:
            source.now += DAY_NS
        source.now += 1000
        market = "AB"[seq % 2]
        # One read: the ticker comes before the trade that it sums up.
        other.feed(ticker(market, volume_fp=f"{seq}.00", market_id=MARKET_ID), source.now)
        other.feed(event(seq, market, "created", close_ts=seq), source.now)
        other.feed(cf_value(seq, seq), source.now)
        other.feed(trade(seq, seq, market, count_fp=f"{seq}.25", is_block_trade=seq % 7 == 0), source.now)
        source.recorder.look()
        source.feed(delta(seq + 1, "0.0800", "1.00"))
        source.recorder.look()
        if seq % 5 == 0:
            raw.feed(b'{"type":"fill","sid":3,"seq":%d,"msg":"\xc3\xbc"}' % (seq // 5), source.now)
            source.feed()
            source.recorder.look()


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_every_source_tells_the_same(
    tmp_path: Path, open_database: Callable[[], Client], engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STRETCH_ROWS", 10)
    source, live = Source(tmp_path), RawLog()
    fill(source, live)
    kinds = {tuple, LifecycleRow, ReferenceRow, TradeRow, TickerRow, RawFrame}
    assert {type(one) for one in live.seen} == kinds
    client = open_database()
    deliver(ClickHouseSink(open_database, source.journal, source.position("clickhouse")))
    sink = ParquetSink(
        tmp_path / "parquet",
        source.journal,
        source.position("parquet"),
        max_bytes=10**9,
        max_secs=10**6,
        row_group_rows=7,
        raw=RawSink(tmp_path / "parquet", source.journal, source.position("raw")),
        histories={table: source.position(table) for table in HISTORIES},
    )
    deliver(sink)
    sink.close()
    source.journal.sync()
    places: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
        (tmp_path / "parquet", {}, TABLES),
        (tmp_path / "parquet" / "orderbook", {}, TABLES),
        (source.journal.directory, {}, TABLES),
        (engine_url, {"database": client.database}, TABLES[:4]),
    ]
    middle_ns = source.now - DAY_NS
    for where, options, tables in places:
        recorded = Replay(where, **options)
        expected = [one for one in live.seen if isinstance(one, tuple) or one.table in tables]
        assert [told(one) for one in recorded.events(channels=tables)] == expected, where
        again = RawLog()
        with nullcontext() if "raw" in tables else pytest.warns(ReplayWarning, match="no raw"):
            assert recorded.drive(again) == len(expected)
        assert again.seen == expected
        rows = [one for one in expected if not isinstance(one, tuple)]
        assert list(recorded.rows()) == rows
        choices: list[dict[str, Any]] = [
            {"markets": "A"},
            {"markets": ["B", "Z"], "start": middle_ns},
            {"end": middle_ns},
            {"start": middle_ns, "end": middle_ns + 3000},
            {"markets": ["Z"]},
        ]
        for chosen in choices:
            markets = chosen.get("markets", "AB")
            assert list(Replay(where, **chosen, **options).rows()) == [
                row
                for row in rows
                if (isinstance(row, RawFrame | ReferenceRow) or row.ticker in markets)
                and chosen.get("start", 0) <= row.ingest_ns < chosen.get("end", 2**63)
            ], (where, chosen)
        told_of = (recorded.trades(), recorded.tickers(), recorded.lifecycle(), recorded.reference())
        made = [table.arrow() for table in told_of]
        assert [table.num_rows for table in made] == [39, 39, 39, 39]
        assert made[0].schema.names[:3] == ["market", "ts", "at"]
        assert made[0]["qty_e2"].to_pylist() == [seq * 100 + 25 for seq in range(1, 40)]
        assert made[0]["is_block"].to_pylist() == [seq % 7 == 0 for seq in range(1, 40)]
        assert made[1]["yes_bid_e4"].to_pylist() == [None] * 39
        assert made[2]["market"].to_pylist() == ["AB"[seq % 2] for seq in range(1, 40)]
        assert made[3].schema.names[:4] == ["index_id", "ts", "at", "value"]
        assert made[3]["value"].to_pylist() == [Decimal(f"84018.{seq:02d}") for seq in range(1, 40)]
        assert made[3]["avg_final_60s"].null_count == 39
    frames = Replay(tmp_path / "parquet").raw().arrow()
    assert frames["payload"][0].as_py() == '{"type":"fill","sid":3,"seq":1,"msg":"ü"}'.encode()
    with pytest.raises(ReplayError, match="no table of raw frames is in a database"):
        Replay(engine_url, database=client.database).raw().arrow()
    part = next((tmp_path / "parquet" / "orderbook").rglob("*.parquet"))
    assert len(list(Replay(part).events())) < len(live.seen)
    with pytest.raises(ReplayError, match="one file of the books has no trades beside it"):
        Replay(part).trades().arrow()
    pattern = str(tmp_path / "parquet" / "orderbook" / "date=2024-10-0?" / "*.parquet")
    assert Replay(pattern).trades().arrow().num_rows == 39


def test_a_capture_tells_of_other_channels_too(tmp_path: Path) -> None:
    lines = [
        snapshot(1, "A", yes=[("0.4500", "10.00")]),
        trade(1, 1, "A"),
        ticker("A", volume_fp="1.00"),
        trade(1, 1, "A"),  # the same again
        trade(4, 2, "B"),
        b"no JSON at all",
        event(1, "A", "settled"),
        frame("event_lifecycle", 13, 2, event_ticker="E", title="all of it"),
        trade(5, 3, "A", count_fp="-1.00"),  # as live: none
        delta(2, "0.4500", "1.00", ticker="A"),
        trade(6, 4, "A"),
    ]
    path = tmp_path / "capture.ndjson"
    path.write_bytes(
        b"".join(
            b'{"ingest_ns":%d,"conn_id":7,"frame":%s}\n' % (START_NS + n, json.dumps(text.decode()).encode())
            for n, text in enumerate(lines)
        )
    )
    rows = list(replay(path).rows())
    assert [(row.ingest_ns - START_NS, row.table) for row in rows] == [
        (1, "trades"),
        (2, "tickers"),
        (4, "trades"),
        (6, "market_lifecycle"),
        (7, "market_lifecycle"),
        (10, "trades"),
    ]
    assert [row.trade_id for row in rows if isinstance(row, TradeRow)] == [trade_id(n) for n in (1, 2, 4)]
    only = replay(path, markets=["B"], start=START_NS + 1).rows()
    assert [row.ingest_ns - START_NS for row in only] == [4]
    with pytest.raises(ReplayError, match="a capture has no raw frames apart"):
        replay(path).raw().arrow()


# --- the reference: one list, sorted ----------------------------------------------------------------------

Book = list[tuple[int, int]]  # (type, market)
TIMES = st.integers(0, 12)


def traded(at: int, number: int, market: str = "KX-0") -> TradeRow:
    ns = START_NS + at * 1000
    id_of_market = trade_id(number if market == "KX-0" else 1000 + number)
    return TradeRow(7, 11, number, id_of_market, market, "yes", False, 4500, 100, ns // 1000, ns)


def ticked(at: int, number: int, market: str = "KX-0") -> TickerRow:
    ns = START_NS + at * 1000
    nothing = (None,) * 5
    return TickerRow(7, 12, NIL_ID, market, 4500, *nothing, number, None, None, None, ns // 1000, ns)


def announced(at: int, number: int, market: str = "KX-0") -> LifecycleRow:
    return LifecycleRow(7, 13, number, market, "E", "created", "{}", START_NS + at * 1000)


def indexed(at: int, number: int, _: str = "") -> ReferenceRow:
    ns = START_NS + at * 1000
    value = Decimal(number).scaleb(-number)
    return ReferenceRow(
        *(7, 14, number, "pyth_value", "Metal.XAU/USD", value, None, None, None, None, None, None),
        *(ns // 1000, ns),
    )


def framed(at: int, number: int) -> RawFrame:
    return RawFrame(START_NS + at * 1000, 7, "fill", b"%d \xff" % number)


MAKERS: dict[str, Callable[..., Any]] = {
    "market_lifecycle": announced,
    "reference_prices": indexed,
    "trades": traded,
    "tickers": ticked,
}
PLACES = {
    name: place
    for place, name in enumerate(("market_lifecycle", "reference_prices", "trades", "book", "tickers", "raw"))
}


def in_one_list(
    book: list[tuple[int, Any]],
    rows: dict[str, list[Any]],
    raw: list[RawFrame],
    start: int | None,
    end: int | None,
    market: str | None,
) -> list[Any]:
    """The reference model: everything in one list, sorted; each trade once, the first that came."""
    everything: list[tuple[int, int, Any]] = [(ns, PLACES["book"], one) for ns, one in book]
    for table, found in rows.items():
        seen = set()
        for row in sorted(found, key=lambda row: row.ingest_ns):
            if table == "trades":
                if row.trade_id in seen or (start is not None and row.ingest_ns < start - BACK_NS):
                    continue
                seen.add(row.trade_id)
            if table == "reference_prices" or market in (None, row.market_ticker):
                everything.append((row.ingest_ns, PLACES[table], row))
    everything += [(row.ingest_ns, PLACES["raw"], row) for row in raw]
    everything.sort(key=lambda one: one[:2])
    return [
        one
        for ns, place, one in everything
        if place == PLACES["book"] or ((start is None or ns >= start) and (end is None or ns < end))
    ]


@settings(max_examples=30)
@given(st.data())
def test_everything_comes_as_one_sorted_list_would(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Ties of all kinds, files that overlap, small row groups, trades that come twice, any stretch."""
    root = tmp_path_factory.mktemp("mixed")
    kinds = data.draw(st.lists(st.sampled_from([CLEAR, DELTA, GAP]), max_size=10))
    book_rows = [(CLEAR, 0, 0, 0, 0)]
    for kind in kinds:
        book_rows.append((kind, 0, 0, 0, 0) if kind != DELTA else (DELTA, 0, 0, 4500, 100))
        if kind == CLEAR:
            book_rows.append((SNAPSHOT, 0, 0, 4400, 200))
    write(root / "orderbook" / DATE / "part-110640_000000.parquet", table_of(book_rows), row_group=3)
    rows: dict[str, list[Any]] = {}
    for table, make in MAKERS.items():
        (root / table).mkdir()
        rows[table] = []
        for number in range(data.draw(st.integers(0, 3))):
            times = sorted(data.draw(st.lists(TIMES, min_size=1, max_size=6)))
            of_file = [
                make(at, data.draw(st.integers(1, 5)), data.draw(st.sampled_from(["KX-0", "KX-1"])))
                for at in times
            ]
            path = root / table / DATE / f"part-11064{number}_000000.parquet"
            bounds = [[f"journal-{number}", 0, 0, 1, 0]]
            write_rows(path, table, of_file, row_group=data.draw(st.integers(1, 4)), ranges=bounds)
            rows[table].append((of_file[0].ingest_ns, str(path), of_file))
        # Files that begin in one moment are in the order of their names.
        rows[table] = [row for *_, of_file in sorted(rows[table], key=lambda f: f[:2]) for row in of_file]
    raw = [framed(at, n) for n, at in enumerate(sorted(data.draw(st.lists(TIMES, max_size=6))))]
    (root / "raw").mkdir()
    lines = [
        {"ingest_ns": row.ingest_ns, "conn_id": 7, "channel": "fill", "payload_base64": b64(row.payload)}
        for row in raw
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "raw" / "2026-11-18-0123abcd-0000.ndjson.gz").write_bytes(gzip.compress(text.encode()))

    start, end = sorted(data.draw(st.tuples(TIMES, TIMES)))
    bounded = data.draw(st.booleans())
    stretch = {"start": START_NS + start * 1000, "end": START_NS + end * 1000} if bounded else {}
    market = data.draw(st.sampled_from([None, "KX-0"]))
    recorded = Replay(root, markets=None if market is None else [market], **stretch)
    book = [(event.ingest_ns, told(event)) for event in recorded.events()]
    expected = in_one_list(book, rows, raw, stretch.get("start"), stretch.get("end"), market)
    assert [told(one) for one in recorded.events(channels=TABLES)] == expected
    log = RawLog()
    assert recorded.drive(log) == len(expected)
    assert log.seen == expected
    shutil.rmtree(root)


def b64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


@settings(max_examples=30)
@given(st.lists(st.tuples(TIMES, st.sampled_from("btal")), max_size=30), st.data())
def test_live_the_order_is_that_of_a_replay(
    tmp_path_factory: pytest.TempPathFactory, reads: list[tuple[int, str]], data: st.DataObject
) -> None:
    """Reads of any frames, sealed in the middle of them or not: the journal replayed tells the same."""
    source, live = Source(tmp_path_factory.mktemp("live"), rows=data.draw(st.integers(3, 9))), Log()
    streams = Streams(source.recorder, ("A", "B"))
    link = channels.link(streams, lambda: source.now)
    grant(link, 8, source.now)
    source.recorder.attach(live)
    seq = {"b": 1, "t": 1, "l": 1}
    source.feed(snapshot(1, "A", yes=[("0.0800", "1.00")]))
    for frames_in_read, kind in reads:
        source.now += 1000
        for _ in range(frames_in_read % 4 + 1):
            if kind == "b":
                seq["b"] += 1
                source.link.feed(delta(seq["b"], "0.0800", "1.00"), source.now)
            else:
                link.feed(ticker("A"), source.now)
                if kind in "al":
                    link.feed(event(seq["l"], "A", "created"), source.now)
                    seq["l"] += 1
                if data.draw(st.booleans()):
                    source.recorder.seal()
                if kind in "ta":
                    link.feed(trade(seq["t"], seq["t"]), source.now)
                    seq["t"] += 1
        if data.draw(st.booleans()):
            source.recorder.seal()
        source.recorder.look()
    source.feed()
    source.recorder.look()
    again = Log()
    Replay(source.journal.directory).drive(again)
    assert live.seen == again.seen
    shutil.rmtree(source.directory)


def test_a_trade_that_was_there_before_the_start_is_not_told_again(tmp_path: Path) -> None:
    second = 1_000_000
    rows = [traded(0, 1), traded(5 * second, 2), traded(6 * second, 1)]
    write_rows(tmp_path / "trades" / DATE / "part-110640_000000.parquet", "trades", rows)
    start = START_NS + 2 * 10**9
    recorded = Replay(tmp_path, start=start)
    assert [row.ingest_ns for row in recorded.rows("trades")] == [START_NS + 5 * 10**9]
    with recorded._beside() as others:
        few = BesideReader(others._place, None, known_trades=1)
        assert len(list(few.rows(["trades"]))) == 3, "as many are known as there may be, and no more"


# --- what is wrong ----------------------------------------------------------------------------------------


def refused(where: Path, table: str = "trades", **options: Any) -> ReplayError:  # noqa: ANN401
    with pytest.raises(ReplayError) as found:
        list(Replay(where, **options).rows(table))
    return found.value


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    write(tmp_path / "orderbook" / DATE / "part-110640_000000.parquet", table_of([(CLEAR, 0, 0, 0, 0)]))
    recorded = replay(tmp_path)
    for table in (recorded.trades(), recorded.tickers(), recorded.lifecycle(), recorded.raw()):
        with pytest.raises(ReplayError, match="are recorded there, no directory"):
            table.arrow()
    with pytest.raises(ReplayError, match="no tickers are recorded there"):
        list(recorded.events(channels=["tickers"]))
    with pytest.raises(FieldError, match="channels"):
        list(recorded.events(channels=["orderbook"]))
    assert "there is nothing" in str(refused(tmp_path / "nowhere"))
    assert list(recorded.rows()) == []
    with pytest.warns(ReplayWarning, match="no trades are recorded there: the strategy"):
        assert recorded.drive(OnlyTrades()) == 1


class OnlyTrades(Strategy):
    def on_trade(self, trade: TradeRow) -> None:
        raise AssertionError("there are none")


def test_a_recording_without_books_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "orderbook").mkdir()
    write_rows(tmp_path / "trades" / DATE / "part-110640_000000.parquet", "trades", [traded(0, 1)])
    assert list(replay(tmp_path).rows()) == list(replay(tmp_path / "trades").rows("trades")) == [traded(0, 1)]


@pytest.mark.parametrize("parent", ["plain", "orderbook", "trades", "tickers", "raw"])
def test_what_the_directories_above_are_called_means_nothing(tmp_path: Path, parent: str) -> None:
    root = tmp_path / parent / "rec"
    part = f"{DATE}/part-110640_000000.parquet"
    write(root / "orderbook" / part, table_of([(CLEAR, 0, 0, 0, 0)]))
    write_rows(root / "trades" / part, "trades", [traded(0, 1)])
    write_rows(tmp_path / "trades" / "rec" / "other" / part, "trades", [traded(0, 9)])
    assert list(replay(root).tables()) == ["trades"]
    assert list(replay(root).rows("trades")) == [traded(0, 1)]
    assert len(list(replay(root).rows())) == 1
    for below in (
        "orderbook",
        f"orderbook/{DATE}",
        "orderbook/date=*",
        "orderbook/*/part-*.parquet",
        "trades",
    ):
        assert list(replay(root / below).rows("trades")) == [traded(0, 1)], below
    assert "no tickers are recorded there" in str(refused(root, "tickers"))
    assert "no raw are recorded there" in str(refused(root, "raw"))
    (root / "raw").mkdir()
    line = {"ingest_ns": START_NS, "conn_id": 1, "channel": "fill", "payload": "x"}
    (root / "raw" / "2026-11-18-0123abcd-0000.ndjson").write_text(json.dumps(line) + "\n")
    for below in ("", "orderbook", "raw"):
        assert len(list(replay(root / below).rows("raw"))) == 1, below


def test_damaged_files_are_named_and_with_repair_left_out(tmp_path: Path) -> None:
    place = tmp_path / "trades" / DATE
    good = write_rows(place / "part-110640_000000.parquet", "trades", [traded(n, n) for n in range(50)])
    columns = pa.Table.from_batches([arrow("trades", [traded(90, 90)])])
    bad = place / "part-110700_000000.parquet"

    def spoilt(what: str, rows: int = 50, **options: Any) -> None:  # noqa: ANN401
        write_rows(bad, "trades", [], **{"columns": columns, **options})
        if what == "cut":
            bad.write_bytes(bad.read_bytes()[:-9])
        error = refused(tmp_path)
        assert error.path == bad, error
        with pytest.warns(ReplayWarning, match="left out|put in order"):
            assert len(list(Replay(tmp_path, repair=True).rows("trades"))) == rows

    spoilt("cut")
    assert "no readable Parquet file" in str(refused(tmp_path))
    spoilt("version", version=SCHEMA_VERSION + 1)
    assert "schema version" in str(refused(tmp_path))
    spoilt("columns", columns=columns.drop_columns(["is_block"]))
    assert "not the columns of this table: is_block is missing" in str(refused(tmp_path))
    empty = columns.set_column(3, SCHEMAS["trades"].field(3), pa.array([None], pa.string()))
    spoilt("null", columns=empty)
    assert "trade_id is empty in 1 rows" in str(refused(tmp_path))
    fallen = pa.Table.from_batches([arrow("trades", [traded(95, 95), traded(90, 90)])])
    spoilt("order", 52, columns=fallen)
    assert "not in the order of ingest_ts" in str(refused(tmp_path))
    bad.unlink()
    shutil.copy(good, bad)
    assert "holds rows that" in str(refused(tmp_path))
    data = bytearray(good.read_bytes())
    data[len(data) // 6] ^= 0xFF
    bad.write_bytes(data)
    good.unlink()
    assert "cannot be read" in str(refused(tmp_path))


def test_lines_that_are_no_raw_frames_are_named_and_with_repair_left_out(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "2026-11-18-0123abcd-0000.ndjson"
    line = '{"ingest_ns":%d,"conn_id":1,"channel":"fill","payload":"x"}\n'
    second = line % (START_NS + 2)
    for wrong in (
        '{"ingest_ns":1}\n',
        "hello\n",
        line % 1,
        line % 2**63,
        second.replace('"x"', "7"),
        second.replace("1,", "-1,"),
        second.replace("1,", f"{2**64},"),
        second.replace('"payload":"x"', '"payload_base64":"@@@@!"'),
        second.replace(',"payload":"x"', ""),
        second.replace('"payload"', '"payload_base64":"eA==","payload"'),
        second.replace('"x"', "[" * 5000),
    ):
        path.write_text(line % START_NS + wrong + line % (START_NS + 3) + '{"ingest_ns":179')
        assert "line 2 is no raw frame" in str(refused(tmp_path, "raw"))
        with pytest.warns(ReplayWarning, match="left out"):
            found = list(Replay(tmp_path, repair=True).rows("raw"))
        assert [row.ingest_ns for row in found] == [START_NS, START_NS + 3], "the last one is being written"
    later = path.with_name("2026-11-19-0123abcd-0001.ndjson.gz")
    path.write_text(line % START_NS)
    later.write_bytes(gzip.compress((line % (START_NS + DAY_NS)).encode()))
    assert len(list(replay(tmp_path).rows("raw"))) == 2
    later.write_bytes(later.read_bytes()[:-5])
    assert "cannot be read" in str(refused(tmp_path, "raw"))
    assert len(list(replay(tmp_path, end=START_NS + 1).rows("raw"))) == 1, "not opened"
    later.write_bytes(_no_blocks(line.encode()))
    assert "cannot be read: Error -3" in str(refused(tmp_path, "raw"))
    with pytest.warns(ReplayWarning, match="cannot be read: Error -3"):
        assert len(list(Replay(tmp_path, repair=True).rows("raw"))) == 1


def _no_blocks(data: bytes) -> bytes:
    """A gzip file of which the header is right and nothing else."""
    packed = bytearray(gzip.compress(data))
    packed[10] = 0xFF
    return bytes(packed)


def test_the_command_counts_what_is_recorded_beside_the_books(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = f"{DATE}/part-110640_000000.parquet"
    write(tmp_path / "orderbook" / part, table_of([(CLEAR, 0, 0, 0, 0)]))
    assert main(["replay", str(tmp_path), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["beside"] == {}
    trades = [traded(number, number % 50) for number in range(60)]
    write_rows(tmp_path / "trades" / part, "trades", trades)
    write_rows(tmp_path / "tickers" / part, "tickers", [ticked(number, number) for number in range(7)])
    write_rows(tmp_path / "market_lifecycle" / part, "market_lifecycle", [announced(1, 1)])
    for more in ([], ["--verify"]):
        assert main(["replay", str(tmp_path), "--quiet", "--json", *more]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[1] == "50 trades, 7 tickers, 1 announcements", "each trade once"
        assert json.loads(out[-1])["beside"] == {"trades": 50, "tickers": 7, "market_lifecycle": 1}


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_a_database_of_an_earlier_version_has_fewer_tables(
    open_database: Callable[[], Client], engine_url: str
) -> None:
    client = open_database()
    client.insert_arrow("orderbook_events", table_of([(CLEAR, 0, 0, 0, 0)]))
    recorded = Replay(engine_url, database=client.database)
    assert recorded.tables() == ["market_lifecycle", "reference_prices", "trades", "tickers"]
    client.command("DROP TABLE trades SYNC")
    client.command("DROP TABLE tickers SYNC")
    report = summarise(recorded)
    assert (report.rows, report.beside) == (1, {"market_lifecycle": 0, "reference_prices": 0})
    with pytest.raises(ReplayError, match="the database has no table trades"):
        recorded.trades().arrow()


# --- from the exchange to a replay ------------------------------------------------------------------------


def test_the_exchanges_trades_come_out_of_both_stores_and_live_as_they_were(
    tmp_path: Path, engine_url: str
) -> None:
    live, source = Log(), SyntheticMarkets(8, 1)

    async def play(url: str) -> tuple[list[Any], int]:
        async with exchange(tmp_path, source, rate=1500, seconds=2, seed=3, life_every_s=0.3) as running:
            told = {"CLICKHOUSE_URL": url, "CLICKHOUSE_USER": front.USER, "CLICKHOUSE_DATABASE": "replayed"}
            told |= {"CLICKHOUSE_PASSWORD": front.PASSWORD, "MARKET_TICKERS": ",".join(source.books)}
            recording = Recording(settings_for(tmp_path, running, **told), live)
            await asyncio.to_thread(recording.open)
            task = asyncio.ensure_future(recording.run())
            await until(running.finished.is_set)
            await until(lambda: recording.recorder.counts.frames >= running.stats.frames_sent)
            await until(lambda: recording.channels.idle)
            recording.stop()
            await task
            await asyncio.to_thread(recording.close)
            return [
                one for one in running.tape.trades if one.ticker in source.books
            ], running.stats.tickers_sent

    with front.server(engine_url) as url:
        trades, tickers_sent = asyncio.run(play(url))
        assert len(trades) > 20
        database = {"user": front.USER, "password": front.PASSWORD, "database": "replayed"}
        for where, options in ((tmp_path / "parquet", {}), (url, database)):
            recorded = Replay(where, **options)
            assert {
                (row.trade_id, row.ticker, row.taker_side, row.yes_price_e4, row.qty_e2, row.ts_us // 1000)
                for row in recorded.rows("trades")
                if isinstance(row, TradeRow)
            } == {as_sent(one) for one in trades}
            assert recorded.trades().arrow().num_rows == len(trades)
            assert recorded.tickers().arrow().num_rows == tickers_sent > 0
            assert recorded.lifecycle().arrow().num_rows > 0
            again = Log()
            recorded.drive(again)
            if not options:
                assert again.seen == live.seen
            assert sorted(again.seen, key=repr) == sorted(live.seen, key=repr)


def as_sent(one: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a trade of the simulator's
    return one.trade_id, one.ticker, one.taker_side, one.yes_price_e4, one.qty_e2, one.ts_ms
