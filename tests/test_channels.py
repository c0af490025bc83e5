"""Trades, tickers and announcements become rows exactly, each once, and reach both stores as they are."""

from __future__ import annotations

import itertools
import json
import os
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

import channels
from channels import as_dicts, cf_value, event, grant, ticker, trade, trade_id
from frames import EXAMPLES, MARKET_ID, snapshot
from journals import DAY_NS, Source, deliver
from kalshi_fast import wire
from kalshi_fast._book import DECI_CENT, LINEAR_CENT
from kalshi_fast.batch import pack_extra, unpack_extra
from kalshi_fast.books import Books
from kalshi_fast.channels import rows as channel_rows
from kalshi_fast.channels.catalogue import TEXT_CHARS, Catalogue
from kalshi_fast.channels.recent import Recent
from kalshi_fast.channels.reference_rows import ReferenceRow
from kalshi_fast.channels.rows import (
    NIL_ID,
    SCHEMAS,
    TABLES,
    ChannelRows,
    LifecycleRow,
    MarketRow,
    TickerRow,
    TradeRow,
    arrow,
)
from kalshi_fast.channels.streams import MOST_BODY_BYTES, Interruption, Streams
from kalshi_fast.errors import JournalError, SinkError
from kalshi_fast.journal import Cursor, Journal, Point, Position
from kalshi_fast.losses import Losses
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.rest_bodies import RestMarket
from kalshi_fast.ring import EXTRA_BYTES
from kalshi_fast.sinks.beside import TablesBeside
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.ndjson import RawSink
from kalshi_fast.sinks.parquet import HISTORIES, ParquetSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.batch import Batch

NOW = 1_700_000_000_000_000_000


class Rig:
    """A recorder with as many links as are asked for; ``rows`` are all that it has written."""

    def __init__(self, links: int = 1, *, most_ids: int = 1000) -> None:
        self.now = NOW
        self.rows = ChannelRows()
        self.health: list[tuple[str, str]] = []
        self.rejected: list[str] = []
        self.pool = LocalPool(1000, 4)
        self.recorder = Recorder(Books(), self.pool, self.store, seal_rows=1000)
        self.streams = Streams(self.recorder, ("A", "B"), recent=Recent(most_ids))
        self.links = [channels.link(self.streams, lambda: self.now) for _ in range(links)]
        for number, link in enumerate(self.links):
            grant(link, 50 + number, self.now)

    def store(self, batch: Batch) -> None:
        for table in TABLES:
            getattr(self.rows, table).extend(getattr(batch.channels, table))
        self.health += [(row.event, row.detail) for row in batch.health]
        self.rejected += [frame.reason for frame in batch.rejected]
        self.pool.release(batch)

    def feed(self, *payloads: bytes, link: int = 0, every_ns: int = 1000) -> ChannelRows:
        for payload in payloads:
            self.now += every_ns
            self.links[link].feed(payload, self.now)
        self.recorder.seal()
        return self.rows

    def traded(self) -> list[str]:
        return [row.trade_id for row in self.rows.trades]


# --- what the exchange says, as rows ----------------------------------------------------------------------


def test_the_exchanges_own_example_of_a_trade_is_exact() -> None:
    message = wire.decode(EXAMPLES["trade"])
    assert isinstance(message, wire.Trade)
    assert channel_rows.trade_row(message, 7, NOW, Losses()) == TradeRow(
        conn_id=7,
        sid=11,
        seq=2,
        trade_id="d91bc706-ee49-470d-82d8-11418bda6fed",
        market_ticker="HIGHNY-22DEC23-B53.5",
        taker_side="no",
        is_block=False,
        yes_price_e4=3600,
        qty_e2=13_600,
        ts_us=1_669_149_841_000_000,
        ingest_ns=NOW,
    )


def test_the_exchanges_own_example_of_a_ticker_is_exact() -> None:
    message = wire.decode(EXAMPLES["ticker"])
    assert isinstance(message, wire.TickerUpdate)
    assert channel_rows.ticker_row(message.msg, 7, message.sid, NOW, Losses()) == TickerRow(
        conn_id=7,
        sid=11,
        market_id=MARKET_ID,
        market_ticker="FED-23DEC-T3.00",
        price_e4=4800,
        yes_bid_e4=4500,
        yes_ask_e4=5300,
        yes_bid_qty_e2=30_000,
        yes_ask_qty_e2=15_000,
        last_trade_qty_e2=2500,
        volume_e2=3_389_600,
        open_interest_e2=2_042_200,
        dollar_volume=16_948,
        dollar_open_interest=10_211,
        ts_us=1_669_149_841_000_000,
        ingest_ns=NOW,
    )


def test_announcements_of_every_kind_are_kept_as_they_came() -> None:
    rig = Rig()
    told = [EXAMPLES[name] for name in ("created", "determined", "settled", "grid", "event", "fee")]
    told.append(b'{"type":"multivariate_market_lifecycle","sid":13,"seq":7,"msg":{"market_ticker":"M"}}')
    told += [EXAMPLES["metadata"], EXAMPLES["multivariate"]]
    for seq, text in enumerate(told, 1):
        message = {**msgspec.json.decode(text), "sid": 13, "seq": seq}
        rig.feed(msgspec.json.encode(message))
    found = rig.rows.market_lifecycle
    assert [(row.event_type, row.market_ticker, row.event_ticker) for row in found] == [
        ("created", "INXD-23SEP14-B4487", "INXD-23SEP14"),
        ("determined", "INXD-23SEP14-B4487", ""),
        ("settled", "INXD-23SEP14-B4487", ""),
        ("price_level_structure_updated", "FED-23DEC-T3.00", ""),
        ("event_lifecycle", "", "KXE-26"),
        ("event_fee_update", "", "KXE-26"),
        ("multivariate_market_lifecycle", "M", ""),
        ("metadata_updated", "INXD-23SEP14-B4487", ""),
        ("created", "KXMVE-1-2", "KXMVE-1"),
    ]
    assert [row.seq for row in found] == list(range(1, 10))
    for row, text in zip(found, told, strict=True):
        assert msgspec.json.decode(row.body) == msgspec.json.decode(text)["msg"]
    market = rig.rows.markets[-1]
    assert (market.title, market.result, market.settlement_value_e4) == ("S&P 500", "yes", 10_000)
    assert (market.open_ts_ms, market.settled_ts_ms) == (1_694_635_200_000, 1_694_721_600_000)
    assert (market.price_level_structure, market.status) == ("linear_cent", "finalized")
    assert (market.subtitle, market.strike_type) == ("4,488 or more", "greater")
    assert (market.floor_strike, market.cap_strike) == (Decimal("4487.99"), None)
    assert [row.market_ticker for row in rig.rows.markets] == ["INXD-23SEP14-B4487"] * 4
    assert sorted(rig.streams.to_ask) == ["A", "B", "FED-23DEC-T3.00"], "those of which nothing is known"


def test_old_frames_in_cents_and_contracts_are_read_too() -> None:
    rig = Rig()
    old: dict[str, Any] = {"yes_price_dollars": None, "count_fp": None, "ts_ms": None}
    rig.feed(
        trade(1, 1, **old, yes_price=36, count=3, ts=5),
        trade(2, 2, **old, no_price=64, count=3),
        ticker(price=40, volume=7, open_interest=2),
    )
    assert [(row.yes_price_e4, row.qty_e2) for row in rig.rows.trades] == [(3600, 300), (3600, 300)]
    assert [row.ts_us for row in rig.rows.trades] == [5_000_000, rig.rows.trades[1].ingest_ns // 1000]
    (row,) = rig.rows.tickers
    assert (row.price_e4, row.volume_e2, row.open_interest_e2, row.yes_bid_e4) == (4000, 700, 200, None)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"trade_id": ""}, "trade_id"),
        ({"trade_id": None}, "trade_id"),
        ({"yes_price_dollars": "1.5"}, "yes_price_dollars"),
        ({"yes_price_dollars": None}, "yes_price_dollars"),
        ({"count_fp": "-1.00"}, "count_fp: expected more than 0"),
        ({"count_fp": "0.00"}, "count_fp"),
        ({"count_fp": None}, "count_fp"),
        ({"count_fp": [1]}, "count_fp"),
        ({"market_ticker": 7}, "market_ticker"),
    ],
)
def test_a_trade_that_cannot_be_is_kept_aside_and_asked_for(wrong: dict[str, Any], told: str) -> None:
    rig = Rig()
    rig.feed(trade(1, 1))
    before = rig.now
    rig.feed(trade(2, 2, **wrong), trade(3, 3))
    assert rig.traded() == [trade_id(1), trade_id(3)]
    assert len(rig.rejected) == 1
    assert told in rig.rejected[0]
    assert rig.recorder.counts.gaps == 0, "its number has come"
    assert rig.streams.interruptions == [Interruption(before, before + 1000)]


def test_integers_beyond_the_columns_are_none_in_the_rows() -> None:
    rig = Rig()
    usual: dict[str, Any] = {
        "yes_bid_dollars": "0.4500",
        "yes_ask_dollars": "0.5300",
        "volume_fp": "1.00",
        "open_interest_fp": "2.00",
    }
    for wrong in ({"dollar_volume": 2**63}, {"volume_fp": "9" * 30}, {"yes_bid_dollars": "1.0001"}):
        rig.feed(ticker(**{**usual, **wrong}))
    rig.feed(event(1, "A", "created", additional_metadata={"floor_strike": 1e300, "cap_strike": "nan"}))
    assert [(row.dollar_volume, row.volume_e2, row.yes_bid_e4) for row in rig.rows.tickers] == [
        (None, 100, 4500),
        (None, None, 4500),
        (None, 100, None),
    ]
    assert rig.recorder.counts.losses.fields == {
        ("ticker", "dollar_volume"): 1,
        ("ticker", "volume_fp"): 1,
        ("ticker", "yes_bid_dollars"): 1,
    }
    assert rig.recorder.counts.losses.lossy["ticker"] == 3
    assert [(row.floor_strike, row.cap_strike) for row in rig.rows.markets] == [(None, None)]
    assert rig.rejected == []
    rig.feed(event(2, "A", "x" * (MOST_BODY_BYTES + 1)))
    assert len(rig.rows.market_lifecycle) == 1
    assert len(rig.rejected) == 1


# --- each once --------------------------------------------------------------------------------------------


def test_a_trade_that_comes_again_after_a_reconnect_is_one_row() -> None:
    rig = Rig()
    rig.feed(trade(1, 1), trade(2, 2))
    seen = rig.now
    rig.now += 10**9
    rig.links[0].on_disconnected(rig.now, "gone")
    rig.now += 10**9
    grant(rig.links[0], 60, rig.now)
    assert rig.streams.interruptions == [Interruption(seen, rig.now)]
    rig.feed(trade(1, 2), trade(2, 3))
    assert rig.traded() == [trade_id(number) for number in (1, 2, 3)]
    assert rig.recorder.counts.trades_repeated == 1


def test_a_gap_is_an_interruption_from_the_last_frame_before_it() -> None:
    rig = Rig()
    rig.feed(trade(1, 1))
    before = rig.now
    rig.feed(trade(5, 5), trade(4, 4), every_ns=10**9)
    assert rig.traded() == [trade_id(1), trade_id(5)]
    assert rig.streams.interruptions == [Interruption(before, before + 10**9)]
    assert ("gap", "trade: numbers 2 to 4 are missing") in rig.health
    assert rig.recorder.counts.repeated == 1


def test_a_hot_standby_doubles_nothing() -> None:
    rig = Rig(links=2)
    for seq in (1, 2, 3):
        for link in (0, 1) if seq % 2 else (1, 0):
            rig.feed(trade(seq, seq), ticker(volume_fp=f"{seq}.00"), event(seq, "A", "activated"), link=link)
    assert rig.traded() == [trade_id(number) for number in (1, 2, 3)]
    assert [row.volume_e2 for row in rig.rows.tickers] == [100, 200, 300]
    assert [row.seq for row in rig.rows.market_lifecycle] == [1, 2, 3]
    rig.links[0].on_disconnected(rig.now, "gone")
    rig.feed(ticker(volume_fp="4.00"), event(4, "A", "activated"), link=1)
    grant(rig.links[0], 70, rig.now)
    rig.feed(ticker(volume_fp="5.00"), event(1, "A", "activated"), link=0)
    rig.feed(ticker(volume_fp="5.00"), event(5, "A", "activated"), link=1)
    assert [(row.volume_e2, row.conn_id) for row in rig.rows.tickers[3:]] == [(400, 51), (500, 51)]
    assert [(row.seq, row.conn_id) for row in rig.rows.market_lifecycle[3:]] == [(4, 51), (5, 51)]


def test_the_memory_of_ids_is_bounded_and_says_what_it_has_forgotten() -> None:
    recent = Recent(3)
    assert [recent.add(trade_id(number), number) for number in (1, 2, 3, 1, 4)] == [True] * 3 + [False, True]
    assert (len(recent), recent.forgotten_us) == (3, 1)
    assert recent.add(trade_id(1), 1), "it is known no more"


def test_only_wanted_markets_have_trades_and_tickers() -> None:
    rig = Rig()
    rig.feed(trade(1, 1, "OTHER"), ticker("OTHER"), event(1, "OTHER", "created"))
    assert (rig.rows.trades, rig.rows.tickers) == ([], [])
    assert [row.market_ticker for row in rig.rows.market_lifecycle] == ["OTHER"]
    rig.streams.add(["OTHER"])
    rig.feed(trade(2, 2, "OTHER"), ticker("OTHER"))
    rig.streams.remove(["OTHER"])
    rig.feed(trade(3, 3, "OTHER"), ticker("OTHER"))
    assert (len(rig.rows.trades), len(rig.rows.tickers)) == (1, 1)


def test_frames_of_no_subscription_of_ours_are_counted_and_nothing_else() -> None:
    rig = Rig()
    alien = msgspec.json.decode(trade(1, 1)) | {"sid": 99}
    rig.feed(msgspec.json.encode(alien), snapshot(1, "A", sid=99), snapshot(1, "A", sid=11), b"{}", b"\xff")
    assert len(rig.rows) == 0
    assert rig.recorder.counts.foreign == 3
    assert len(rig.rejected) == 2


# --- markets ----------------------------------------------------------------------------------------------


def test_books_follow_an_announced_grid_where_their_prices_are_on_it(tmp_path: Path) -> None:
    source = Source(tmp_path)
    link = channels.link(Streams(source.recorder, ("A", "B")), lambda: source.now)
    grant(link, 5, source.now)
    source.feed(snapshot(1, "A", yes=[("0.0800", "1.00")]), snapshot(2, "B", yes=[("0.0810", "1.00")]))
    books = source.books.by_ticker
    assert books["A"].book.grid == LINEAR_CENT
    finer = {"price_level_structure": "deci_cent"}
    link.feed(event(1, "A", "price_level_structure_updated", **finer), source.now)
    assert books["A"].book.grid == DECI_CENT
    link.feed(event(2, "B", "x", price_level_structure="linear_cent"), source.now)
    assert not books["B"].book.stale, "another connection's word binds no book"
    assert books["B"].book.size_at(0, 810) == 100
    bad = [{"start": "9", "end": "1.0000", "step": "0.0100"}]
    link.feed(event(3, "A", "x", price_ranges=bad), source.now)
    assert books["A"].book.grid == DECI_CENT, "ranges that cannot be say nothing"
    assert source.recorder.counts.rejected == 0
    assert source.recorder.counts.losses.fields == {("market_lifecycle_v2", "price_ranges"): 1}


def test_what_rest_says_completes_a_market_and_repeats_nothing() -> None:
    catalogue = Catalogue()
    closing = wire.LifecycleBody("A", "close_date_updated", close_ts=7)
    assert catalogue.apply(closing, 1) is None, "of a market that nobody knows there is no row"
    market = RestMarket(
        "A", title="t", status="active", close_time="2026-01-01T00:00:00Z", floor_strike=Decimal("2.5")
    )
    row = catalogue.learn(market, 2)
    assert row is not None
    assert (row.title, row.status, row.floor_strike) == ("t", "active", Decimal("2.5"))
    assert row.close_ts_ms == 1_767_225_600_000
    assert catalogue.learn(market, 3) is None
    after = catalogue.apply(closing, 4)
    assert after is not None
    assert (after.title, after.close_ts_ms, after.version) == ("t", 7000, 4)


def test_the_catalogue_is_bounded_and_forgets_the_settled_first() -> None:
    catalogue = Catalogue(2)
    for number, name in enumerate(("A", "B")):
        catalogue.apply(wire.LifecycleBody(name, "created"), number)
    catalogue.apply(wire.LifecycleBody("B", "settled"), 3)
    catalogue.apply(wire.LifecycleBody("C", "created"), 4)
    assert [name in catalogue for name in "ABC"] == [True, False, True]
    catalogue.apply(wire.LifecycleBody("D", "created"), 5)
    assert [name in catalogue for name in "ACD"] == [False, True, True]


# --- to the stores ----------------------------------------------------------------------------------------

_INT64 = st.integers(-(2**63), 2**63 - 1)
_U64, _U32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
_PRICE = st.integers(0, 10_000)
_US = st.integers(0, 2**53)
_NAME = st.sampled_from(("A", "KX-1.5", ""))
_UUID = st.uuids().map(str)
_BODY = st.text(st.characters(codec="utf-8"), max_size=40)
_STRIKE = st.none() | st.decimals(-(10**9), 10**9, places=4)
_MS = st.none() | st.integers(0, 2**42)
_MAYBE_VALUE = st.none() | st.decimals(-(10**9), 10**9, places=18)
_MAYBE_TICKS = st.none() | _U32

_SIDE = st.sampled_from(("yes", "no"))
_MAYBE_PRICE, _MAYBE_INT = st.none() | _PRICE, st.none() | _INT64
_HEAD = (_U64, _U32)

ROWS: dict[str, st.SearchStrategy[Any]] = {
    "trades": st.builds(
        TradeRow, *_HEAD, _U64, _UUID, _NAME, _SIDE, st.booleans(), _PRICE, _INT64, _US, _INT64
    ),
    "tickers": st.builds(
        TickerRow, *_HEAD, _UUID, _NAME, *[_MAYBE_PRICE] * 3, *[_MAYBE_INT] * 7, _US, _INT64
    ),
    "market_lifecycle": st.builds(LifecycleRow, *_HEAD, _U64, _NAME, _NAME, _NAME, _BODY, _INT64),
    "reference_prices": st.builds(
        ReferenceRow,
        *(*_HEAD, _U64, _NAME, _NAME),
        *(_MAYBE_VALUE, _MAYBE_VALUE, _MAYBE_TICKS, _MAYBE_VALUE, _MAYBE_TICKS, _MS, _MS, _US, _INT64),
    ),
    "markets": st.builds(
        MarketRow,
        *(_NAME, _UUID, _NAME, _NAME, _BODY, _BODY, _NAME, _NAME, _STRIKE, _STRIKE, _NAME, _BODY),
        *([_MS] * 5),
        *(_NAME, _MAYBE_PRICE, _U64),
    ),
}
KINDS = {
    "trades": TradeRow,
    "tickers": TickerRow,
    "market_lifecycle": LifecycleRow,
    "reference_prices": ReferenceRow,
    "markets": MarketRow,
}


def plain(table: pa.Table | pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Values as they are in the rows: times as integers."""
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in table.columns
    ]
    return list(zip(*columns, strict=True))


@given(st.fixed_dictionaries({table: st.lists(rows, max_size=5) for table, rows in ROWS.items()}))
def test_rows_come_out_of_a_batch_and_into_columns_as_they_went_in(tables: dict[str, Any]) -> None:
    packed = pack_extra([], [], ChannelRows(**tables))
    assert (packed == b"") == (not any(tables.values()))
    unpacked = unpack_extra(packed).channels
    for table, rows in tables.items():
        assert getattr(unpacked, table) == rows
        if rows:
            columns = arrow(table, rows)
            columns.validate(full=True)
            assert plain(columns) == [msgspec.structs.astuple(row) for row in rows]


def test_columns_have_the_names_of_the_tables_and_the_rows_their_order() -> None:
    units = {"_us": "", "_ns": "", "_ms": ""}
    for table, kind in KINDS.items():
        fields = [name[:-3] if name[-3:] in units else name for name in kind.__struct_fields__]
        fields = ["ingest_ts" if name == "ingest" else name for name in fields]
        assert fields == SCHEMAS[table].names


def as_plain(name: str) -> str:
    """A column asked of ClickHouse as the rows have it."""
    if name in ("source_ts", "received_ts"):
        return f"toUnixTimestamp64Milli({name})"
    if name in ("ts", "ingest_ts"):
        return f"toUnixTimestamp64{'Micro' if name == 'ts' else 'Nano'}({name})"
    return f"toString({name})" if name in ("trade_id", "market_id", "taker_side") else name


def fill(source: Source) -> None:
    """Some of everything, over two days, in one journal with books."""
    streams = Streams(source.recorder, ("A", "B"))
    link = channels.link(streams, lambda: source.now, reference=True)
    grant(link, 7, source.now)
    source.feed(snapshot(1, "A", yes=[("0.0800", "1.00")]))
    for seq in range(1, 40):
        if seq == 20:
            source.now += DAY_NS
        source.now += 1000
        link.feed(trade(seq, seq, "AB"[seq % 2], count_fp=f"{seq}.25"), source.now)
        link.feed(ticker("AB"[seq % 2], volume_fp=f"{seq}.00", market_id=MARKET_ID), source.now)
        kinds = {"additional_metadata": {"title": f"{seq} 'ü'", "floor_strike": 4487.99}, "close_ts": seq}
        link.feed(event(seq, f"M{seq % 3}", "created", **kinds), source.now)
        link.feed(cf_value(seq, seq), source.now)
        source.feed()


def test_both_stores_have_every_row_as_it_was(open_database: Callable[[], Client], tmp_path: Path) -> None:
    source, client = Source(tmp_path), open_database()
    fill(source)
    deliver(ClickHouseSink(open_database, source.journal, source.position("clickhouse")))
    sink = ParquetSink(
        tmp_path,
        source.journal,
        source.position("parquet"),
        max_bytes=10**9,
        max_secs=10**6,
        histories={table: source.position(table) for table in HISTORIES},
    )
    deliver(sink)
    assert sink.done_seq < source.journal.end, "open files hold the journal"
    sink.close()
    assert sink.done_seq == source.journal.end
    for table in HISTORIES:
        files = sorted((tmp_path / table).rglob("*.parquet"))
        assert [path.parent.name for path in files] == ["date=2024-10-04", "date=2024-10-05"]
        stored = plain(ds.dataset(files, schema=SCHEMAS[table]).to_table())
        assert len(stored) == 39
        names = ", ".join(map(as_plain, SCHEMAS[table].names))
        asked = client.query(f"SELECT {names} FROM {table} ORDER BY ingest_ts").result_rows
        assert [tuple(row) for row in asked] == stored
    markets = client.query(
        "SELECT market_ticker, title, floor_strike, close_ts, market_id FROM markets_now ORDER BY 1"
    )
    assert [(row[0], row[1], row[2], row[3].timestamp(), str(row[4])) for row in markets.result_rows] == [
        (f"M{seq % 3}", f"{seq} 'ü'", Decimal("4487.99"), seq, NIL_ID) for seq in (39, 37, 38)
    ]
    assert client.query("SELECT count() FROM orderbook_events").result_rows == [(2,)]


def test_an_insert_that_is_repeated_stores_nothing_twice(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    fill(source)
    sink = ClickHouseSink(open_database, source.journal, source.position("clickhouse"))
    sink.open()
    sink._take()
    beside = sink._beside
    insert, seen = beside._insert, []

    def dies(table: str, parts: list[pa.RecordBatch], token: str, *, doubtful: bool) -> None:
        insert(table, parts, token, doubtful=doubtful)
        seen.append(token)
        if table == "tickers":
            raise RuntimeError("it was stored, and died before it could say so")

    beside._insert = dies
    with pytest.raises(SinkError, match="it was stored"):
        sink.flush()
    again = ClickHouseSink(open_database, source.journal, source.position("clickhouse"))
    source.feed(snapshot(2, "B"))  # what comes now is not in it
    link = channels.link(Streams(source.recorder, ("A", "B")), lambda: source.now)
    grant(link, 8, source.now)
    link.feed(trade(1, 1000), source.now)
    source.feed()
    deliver(again)
    assert client.query("SELECT count() FROM trades WHERE conn_id = 8").result_rows == [(1,)]
    client.command("DELETE FROM trades WHERE conn_id = 8")
    assert len(set(seen)) == 1
    for table in HISTORIES:
        assert client.query(f"SELECT count() FROM {table}").result_rows == [(39,)]


def test_a_position_that_cannot_be_written_for_once_costs_no_row_beside_the_books(
    open_database: Callable[[], Client], tmp_path: Path
) -> None:
    source, client = Source(tmp_path), open_database()
    fill(source)
    sink = ClickHouseSink(open_database, source.journal, source.position("clickhouse"))
    position = sink._position
    writable, position._fd = position._fd, os.open(position.path, os.O_RDONLY)
    with pytest.raises(JournalError, match="cannot be written"):
        sink.step()
    sink.reset()
    os.close(position._fd)
    position._fd = writable
    deliver(sink)
    assert client.query("SELECT count() FROM orderbook_events").result_rows == [(2,)]
    for table in TABLES:
        assert client.query(f"SELECT count() > 0 FROM {table}").result_rows == [(1,)]
    for table in HISTORIES:
        assert client.query(f"SELECT count() FROM {table}").result_rows == [(39,)]


@pytest.mark.parametrize(("seq", "until"), [(7, 0), (3, 7)], ids=["stored", "begun"])
def test_numbers_that_only_the_tables_beside_have_had_are_not_given_again(
    seq: int, until: int, tmp_path: Path
) -> None:
    """As after a failure of the machine: the journal is back at its beginning, their position is not."""
    source = Source(tmp_path)
    position = source.position("clickhouse-channels")
    position.write(Point(source.journal.id, seq, until=until))
    stored: list[pa.RecordBatch] = []

    def insert(table: str, parts: list[pa.RecordBatch], token: str, *, doubtful: bool) -> None:
        assert not doubtful, "of a journal that has nothing"
        stored.extend(parts)

    beside = TablesBeside(source.journal, position, insert)
    assert source.journal.end == 7
    link = channels.link(Streams(source.recorder, ("A", "B")), lambda: source.now)
    grant(link, 8, source.now)
    link.feed(trade(1, 1000), source.now)
    source.feed()
    for entry in Cursor(source.journal, beside.done_seq).take(10**6):
        beside.take(entry)
    beside.flush(force=True)
    assert [plain(rows)[0][3:5] for rows in stored] == [(trade_id(1000), "A")]
    assert beside.done_seq == source.journal.end == 8


def test_a_crash_between_rename_and_position_writes_no_trade_twice(tmp_path: Path) -> None:
    source = Source(tmp_path)
    fill(source)

    def sink() -> ParquetSink:
        places = {table: source.position(table) for table in HISTORIES}
        return ParquetSink(
            tmp_path,
            source.journal,
            source.position("parquet"),
            max_bytes=10**9,
            max_secs=10**6,
            histories=places,
        )

    first = sink()
    trades = next(series for series in first._all if series.root.name == "trades")
    before = trades._position.point
    assert before is not None
    deliver(first)
    trades.finish()
    trades._position.write(before)
    for series in first._all:
        if series._file is not None:
            series._file.abandon()
    second = sink()
    for _ in range(2):  # of either date there is a file
        with pytest.raises(SinkError, match="the position was behind its files"):
            deliver(second)
        second.reset()
    deliver(second)
    second.close()
    for table in (*HISTORIES, "orderbook"):
        rows = ds.dataset(tmp_path / table, format="parquet", partitioning=None).to_table()
        key = "trade_id" if table == "trades" else "ingest_ts"
        assert len(rows) == (2 if table == "orderbook" else 39)
        if table != "orderbook":
            assert len(set(rows.column(key).to_pylist())) == 39


def test_texts_of_many_bytes_a_character_fill_no_batch_beyond_its_room(tmp_path: Path) -> None:
    source = Source(tmp_path)
    link = channels.link(Streams(source.recorder, ()), lambda: source.now)
    grant(link, 7, source.now)
    text = "\N{CHART WITH UPWARDS TREND}" * 2000
    texts = dict.fromkeys(("event_ticker", "series_ticker", "title", "yes_sub_title", "strike_type"), text)
    for seq in range(1, 61):
        created = event(seq, f"M{seq}", "created", price_level_structure=text, additional_metadata=texts)
        link.feed(json.dumps(json.loads(created), ensure_ascii=False).encode(), source.now)
    source.feed()
    entries = Cursor(source.journal, 0).take(10**6)
    rows = [row for entry in entries for row in entry.extra.channels.markets]
    assert [row.market_ticker for row in rows] == [f"M{seq}" for seq in range(1, 61)]
    assert {(row.title, row.subtitle, row.price_level_structure) for row in rows} == {(text,) * 3}
    assert sum(len(entry.extra.channels.market_lifecycle) for entry in entries) == 60
    assert all(len(pack_extra([], [], entry.extra.channels)) <= EXTRA_BYTES for entry in entries)
    assert not [row for entry in entries for row in entry.extra.health if row.event == "left_out"]


def test_the_longest_announcement_and_the_texts_of_a_market_are_bounded_in_bytes() -> None:
    rig = Rig()
    rig.feed(event(1, "A", "ü" * (MOST_BODY_BYTES // 2)))
    assert len(rig.rejected) == 1
    assert f"at most {MOST_BODY_BYTES} bytes" in rig.rejected[0]
    grid = [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]
    long = "x" * (TEXT_CHARS + 1)
    rig.feed(event(2, "A", "created", price_level_structure=long, price_ranges=grid * 100))
    rig.feed(event(3, "B", "created", price_level_structure="y", price_ranges=grid))
    first, second = rig.rows.markets
    assert (first.price_level_structure, first.price_ranges) == ("x" * TEXT_CHARS, "")
    assert (second.price_level_structure, json.loads(second.price_ranges)) == ("y", grid)


def test_what_a_trade_or_a_ticker_of_the_longest_name_comes_to_is_counted_in_full() -> None:
    pool = LocalPool(10, 1)
    most = 2**63 - 1
    for table, row in (
        ("trades", TradeRow(most, most, most, NIL_ID, "X" * 128, "yes", True, most, most, most, most)),
        ("tickers", TickerRow(most, most, NIL_ID, "X" * 128, *[most] * 12)),
    ):
        batch = pool.acquire(0)
        for _ in range(100):
            batch.add_row(table, row, 0)
        assert len(pack_extra([], [], batch.channels)) <= batch.extra_bytes
        batch.begin(0)
        pool.release(batch)


def test_ids_of_old_trades_are_written_in_one_way() -> None:
    assert channel_rows.trade_id(str(uuid.UUID(int=5)).upper(), Losses()) == str(uuid.UUID(int=5))
    assert as_dicts([MarketRow("A")])[0]["market_id"] == NIL_ID


# --- raw --------------------------------------------------------------------------------------------------


def test_raw_frames_are_kept_as_they_came_in_files_of_bounded_size(tmp_path: Path) -> None:
    source = Source(tmp_path)
    link = channels.link(Streams(source.recorder, ()), lambda: source.now, raw=("fill",))
    link.session.channels = ("fill",)
    link.on_connected(9, source.now)
    (command,) = channels.commands(link.session)
    link.feed(wire.encode(wire.Subscribed(command.id, wire.ChannelSid("fill", 3))), source.now)
    frames = [
        b'{"type":"fill", "sid":3,"seq":%d,"msg":{"any":"thing \xc3\xbc"}}' % seq for seq in range(1, 9)
    ]

    def sink() -> tuple[ParquetSink, RawSink]:
        raw = RawSink(tmp_path, source.journal, source.position("raw"), max_bytes=400)
        position = source.position("parquet")
        return ParquetSink(tmp_path, source.journal, position, max_bytes=10**9, max_secs=900, raw=raw), raw

    def kept() -> list[bytes]:
        lines = [
            line for path in sorted((tmp_path / "raw").iterdir()) for line in path.read_bytes().splitlines()
        ]
        return [json.loads(line)["payload"].encode() for line in lines]

    for frame in frames[:4]:
        link.feed(frame, source.now)
        source.feed()
    link.feed(b'{"type":"fill","sid":3,"seq":5,"msg":"%b"}' % (b"x" * 300_000), source.now)
    first, raw = sink()
    deliver(first)
    position = raw._position.point
    assert position is not None
    assert raw.rows == 4
    assert len(list((tmp_path / "raw").iterdir())) >= 2
    assert all(path.stat().st_size <= 400 for path in (tmp_path / "raw").iterdir())
    for frame in frames[5:]:
        link.feed(frame, source.now)
        source.feed()
    deliver(first)
    raw._position.write(position)  # as if it had died before it could say so
    first.close()
    source.position("parquet").write(Point(source.journal.id, 0))
    second, _ = sink()
    assert kept() == frames[:4]
    deliver(second)
    assert kept() == frames[:4] + frames[5:]
    second.close()
    assert source.recorder.counts.raw == 7
    assert source.recorder.counts.rejected == 1, "too long"
    line = json.loads(next((tmp_path / "raw").iterdir()).read_text().splitlines()[0])
    assert (line["channel"], line["conn_id"], line["ingest_ns"]) == ("fill", 9, source.now)


def raw_frames(source: Source) -> Callable[[int], bytes]:
    """Each call records a frame of a channel that is kept as it comes, with a text so long."""
    link = channels.link(Streams(source.recorder, ()), lambda: source.now, raw=("fill",))
    link.session.channels = ("fill",)
    link.on_connected(9, source.now)
    (command,) = channels.commands(link.session)
    link.feed(wire.encode(wire.Subscribed(command.id, wire.ChannelSid("fill", 3))), source.now)
    seqs = itertools.count(1)

    def record(chars: int) -> bytes:
        frame = b'{"type":"fill","sid":3,"seq":%d,"msg":"%b"}' % (next(seqs), b"x" * chars)
        link.feed(frame, source.now)
        source.feed()
        return frame

    return record


def test_raw_frames_outlive_restarts_also_where_an_earlier_file_has_room(tmp_path: Path) -> None:
    source = Source(tmp_path)
    record = raw_frames(source)
    frames: list[bytes] = []

    def keep(*lengths: int) -> list[str]:
        """By a process of its own: the names of the files that there are behind it."""
        raw = RawSink(tmp_path, source.journal, source.position("raw"), max_bytes=700)
        position = source.position("parquet")
        sink = ParquetSink(tmp_path, source.journal, position, max_bytes=10**9, max_secs=900, raw=raw)
        for length in lengths:
            frames.append(record(length))
            deliver(sink)
        sink.close()
        paths = sorted((tmp_path / "raw").iterdir())
        lines = [line for path in paths for line in path.read_bytes().splitlines()]
        assert [json.loads(line)["payload"].encode() for line in lines] == frames
        return [path.name for path in paths]

    assert len(keep(400, 400, 400)) == 3
    assert len(keep(10)) == 3, "the first file has room, and the last one too"
    source.now += DAY_NS
    names = keep(400, 400)
    assert [name[8:10] for name in names] == ["04", "04", "04", "05", "05"]
    assert keep(10) == names
    assert keep() == names


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_raw_frames_are_on_the_disk_before_a_position_that_is(
    fsync: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(tmp_path, journal=Journal(tmp_path / "journal", fsync=fsync))
    record = raw_frames(source)
    place = Position(tmp_path / "raw.position", fsync=fsync == "always")
    raw = RawSink(tmp_path, source.journal, place)
    position = source.position("parquet")
    sink = ParquetSink(tmp_path, source.journal, position, max_bytes=10**9, max_secs=900, raw=raw)
    synced: list[tuple[str, str]] = []  # what, and what the position said then
    really = os.fsync

    def watched(fd: int) -> None:
        really(fd)
        there = (tmp_path, tmp_path / "raw", *(tmp_path / "raw").iterdir())
        (path,) = (path for path in there if path.stat().st_ino == os.fstat(fd).st_ino)
        size = f":{path.stat().st_size}" if path.is_file() else ""
        synced.append((path.name + size, "" if place.point is None else place.point.detail))

    said = []
    for length in (10, 20):
        record(length)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", watched)
            deliver(sink)
        assert place.point is not None
        said.append(place.point.detail)
    sink.close()
    assert said[0] != said[1]
    if fsync == "always":
        assert synced == [(said[0], ""), ("raw", ""), (tmp_path.name, ""), (said[1], said[0])]
    else:
        assert synced == []
