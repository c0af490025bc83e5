"""Exports: what other programs read is our book, at every event."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import trade_id
from conftest import FEW
from kalshi_fast import TradeRow
from kalshi_fast._depth import CLEARED, DepthUpdates
from kalshi_fast.cli import main
from kalshi_fast.errors import ConfigError, ExportError, FieldError, ReplayError
from kalshi_fast.exporting import describe, export, hft
from kalshi_fast.exporting.days import DAY_NS, MarketDay, Totals, exchange_times, market_days
from kalshi_fast.sinks.layout import date_name
from replay_model import write_rows
from streams import TICKERS, ListSource, Reference, Row, chunk_of, random_rows, write_events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client
    from numpy.typing import NDArray


class HftDepth:
    """hftbacktest's hash-map depth, as its source has it: it hides levels that are crossed, and finds them
    again only when they are said again."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.levels: tuple[dict[int, float], dict[int, float]] = ({}, {})
        self.bid: int | None = None
        self.ask: int | None = None

    def apply(self, event: Any) -> None:  # noqa: ANN401 - a row of an event array
        kind = int(event["ev"]) & 0xFF
        if kind == hft.DEPTH_CLEAR_EVENT:
            self.clear()
            return
        assert kind in (hft.DEPTH_EVENT, hft.DEPTH_SNAPSHOT_EVENT)
        tick, qty = round(float(event["px"]) * 100), float(event["qty"])
        ask = bool(int(event["ev"]) & hft.SELL_EVENT)
        assert ask != bool(int(event["ev"]) & hft.BUY_EVENT)
        levels = self.levels[ask]
        levels.pop(tick, None)
        if qty:
            levels[tick] = qty
        if not ask:
            if not qty and tick == self.bid:
                self.bid = max((t for t in levels if t < tick), default=None)
            elif qty and (self.bid is None or tick > self.bid):
                self.bid = tick
                if self.ask is not None and self.bid >= self.ask:
                    self.ask = min((t for t in self.levels[1] if t > tick), default=None)
        elif not qty and tick == self.ask:
            self.ask = min((t for t in levels if t > tick), default=None)
        elif qty and (self.ask is None or tick < self.ask):
            self.ask = tick
            if self.bid is not None and self.bid >= self.ask:
                self.bid = max((t for t in self.levels[0] if t < tick), default=None)


def days_of(rows: list[Row], *, chunk_rows: int = 17, max_rows: int = 10**6) -> list[MarketDay]:
    return list(market_days(ListSource(rows, chunk_rows), Totals(), max_rows=max_rows))  # type: ignore[arg-type]


def e4(tick: int | None) -> int | None:
    return None if tick is None else tick * 100


# --- the updates ----------------------------------------------------------------------------------------


@settings(max_examples=30 if FEW else 150)
@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(1, 60), st.sampled_from([3, 40, 10**6]))
def test_the_book_of_the_export_is_ours_after_every_event(
    seed: int, frames: int, chunk_rows: int, max_rows: int
) -> None:
    rows = random_rows(seed, frames)
    days = days_of(rows, chunk_rows=chunk_rows, max_rows=max_rows)
    for market, ticker in enumerate(TICKERS):
        events = [hft.event_array(day) for day in days if day.ticker == ticker]
        found = np.concatenate(events) if events else np.empty(0, hft.EVENT_DTYPE)
        reference, depth, at = Reference(), HftDepth(), 0
        of_market = [row for row in rows if row.market == market]
        for row, later in zip_longest(of_market, of_market[1:]):
            reference.apply(row)
            if later is not None and later.ingest_ns == row.ingest_ns:
                continue  # the same frame
            while at < len(found) and found[at]["local_ts"] <= row.ingest_ns:
                depth.apply(found[at])
                at += 1
            if not reference.crossed:
                assert (e4(depth.bid), e4(depth.ask)) == reference.best
            sides = reference.book or ({}, {})
            assert {t * 100: round(q * 100) for t, q in depth.levels[0].items()} == sides[0]
            assert {10_000 - t * 100: round(q * 100) for t, q in depth.levels[1].items()} == sides[1]
        assert at == len(found)
        assert (np.diff(found["local_ts"]) >= 0).all()
        assert (np.diff(found["exch_ts"]) >= 0).all()
        assert (found["exch_ts"] <= found["local_ts"]).all()


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 100))
def test_the_file_of_a_date_can_be_used_alone(seed: int, frames: int) -> None:
    rows = random_rows(seed, frames)
    for day in days_of(rows):
        reference, depth = Reference(), HftDepth()
        for row in rows:
            if row.market == TICKERS.index(day.ticker) and row.ingest_ns <= day.receive_ns[-1]:
                reference.apply(row)
        for event in hft.event_array(day):
            depth.apply(event)
        sides = reference.book or ({}, {})
        assert {t * 100: round(q * 100) for t, q in depth.levels[0].items()} == sides[0]
        assert {10_000 - t * 100: round(q * 100) for t, q in depth.levels[1].items()} == sides[1]
        assert len({at // DAY_NS for at in day.receive_ns.tolist()}) == 1


def test_parts_of_a_date_are_the_date() -> None:
    rows = random_rows(5, 300, step_ns=10**6)
    whole, parts = days_of(rows), days_of(rows, max_rows=20)
    assert len(parts) > 10
    for ticker in TICKERS:
        (one,) = (hft.event_array(day) for day in whole if day.ticker == ticker)
        of_market = [day for day in parts if day.ticker == ticker]
        assert [day.part for day in of_market] == list(range(len(of_market)))
        assert [day.last for day in of_market] == [False] * (len(of_market) - 1) + [True]
        many = np.concatenate([hft.event_array(day) for day in of_market])
        assert (one["ev"] == many["ev"]).all()
        assert (one["px"] == many["px"]).all()
        assert (one["qty"] == many["qty"]).all()


def test_unknown_stretches_are_empty_on_both_sides() -> None:
    rows = random_rows(8, 400)
    totals = Totals()
    days = list(market_days(ListSource(rows, 50), totals))  # type: ignore[arg-type]
    references = [Reference(), Reference()]
    lost = 0
    for row in rows:
        before = references[row.market].book
        references[row.market].apply(row)
        lost += before is not None and references[row.market].book is None
    cleared = sum(int((day.updates["kind"] == CLEARED).sum()) for day in days)
    midnight = sum(int((day.seq == 0).any()) for day in days)
    assert lost > 5
    assert cleared == lost + midnight + sum(row.kind == 2 for row in rows)
    assert totals.faults > 0
    assert totals.crossed > 0


@given(st.data())
def test_exchange_times_never_fall_and_are_never_after_the_receipt(data: st.DataObject) -> None:
    receive = np.sort(np.array(data.draw(st.lists(st.integers(0, 1000), min_size=1, max_size=30)), np.int64))
    none = np.iinfo(np.int64).min
    told = np.array([data.draw(st.one_of(st.just(none), st.integers(0, 1200))) for _ in receive], np.int64)
    before = data.draw(st.integers(0, int(receive[0])))
    times, raised, early = exchange_times(told, receive, before)
    assert (np.diff(times) >= 0).all()
    assert (times <= receive).all()
    assert times[0] >= before
    assert int((early > 0).sum()) == sum(t > r for t, r in zip(told.tolist(), receive.tolist(), strict=True))
    sound = [t for t in told.tolist() if t != none]
    in_order = sound == sorted(sound) and (not sound or sound[0] >= before) and not early.any()
    if in_order:
        assert raised == 0
        assert [t for t, o in zip(times.tolist(), told.tolist(), strict=True) if o != none] == sound


def test_the_compiled_part_refuses_what_it_cannot_use() -> None:
    depth = DepthUpdates()
    with pytest.raises(FieldError, match="market_ix"):
        depth.want(-1)
    chunk = chunk_of(random_rows(1, 20))
    with pytest.raises(FieldError, match="one length"):
        depth.apply(chunk.type, chunk.market_ix[:-1], chunk.side, chunk.price_e4, chunk.qty_e2)
    assert (
        len(depth.apply(chunk.type, chunk.market_ix, chunk.side, chunk.price_e4, chunk.qty_e2)) == 0
    )  # none wanted
    assert len(depth.levels(10**6)) == 0
    odd = np.array([9, -1, 3], np.int8)
    depth.want(0)
    zeros = np.zeros(3, np.int32)
    assert len(depth.apply(odd, zeros, odd, zeros.astype(np.uint16) + 20_000, zeros.astype(np.int64))) == 0


# --- the files --------------------------------------------------------------------------------------------


def load(path: str) -> NDArray[Any]:
    with np.load(path) as archive:
        data: NDArray[Any] = archive["data"]
    return data


def test_hftbacktest_files_are_named_by_market_and_date(tmp_path: Path) -> None:
    rows = random_rows(3, 200)
    source = write_events(tmp_path / "data", rows)
    report = export("hftbacktest", source, tmp_path / "out", quiet=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"{t}_{d}.npz" for t in TICKERS for d in ("20251130", "20251201"))
    by_file = {(file.market, file.date): load(file.path) for file in report.files}
    for day in days_of(rows):
        assert (by_file[day.ticker, day.date] == hft.event_array(day)).all()
    assert {file.tick_size for file in report.files} == {0.01}
    assert report.events == len(rows)
    assert zipfile.ZipFile(report.files[0].path).testzip() is None


def test_a_stretch_begins_with_the_book_as_it_was_then(tmp_path: Path) -> None:
    rows = random_rows(4, 100, step_ns=10**8)
    source = write_events(tmp_path / "data", rows)
    at_ns = rows[len(rows) // 2].ingest_ns
    report = export("hftbacktest", source, tmp_path / "out", markets=[TICKERS[0]], start=at_ns, quiet=True)
    assert {file.market for file in report.files} == {TICKERS[0]}
    reference, depth = Reference(), HftDepth()
    for row in rows:
        if row.market == 0:
            reference.apply(row)
    for file in report.files:
        events = load(file.path)
        assert (events["local_ts"] >= at_ns).all()
        for event in events:
            depth.apply(event)
    assert {t * 100: round(q * 100) for t, q in depth.levels[0].items()} == (reference.book or ({}, {}))[0]


def traded(at_ns: int, number: int, side: str, price_e4: int, *, block: bool = False) -> TradeRow:
    ts_us, qty_e2 = at_ns // 1000 - 10, 100 * number + 50
    return TradeRow(7, 2, number, trade_id(number), TICKERS[0], side, block, price_e4, qty_e2, ts_us, at_ns)


def with_trades(directory: Path) -> tuple[Path, list[TradeRow], Row]:
    """A recording with trades: one at a change of the book, a block trade then, one behind all; and one of a
    market that has no book."""
    rows = random_rows(6, 60, step_ns=10**8)
    source = write_events(directory / "data", rows)
    delta = next(row for row in rows if row.kind == 1 and row.market == 0)
    trades = [
        traded(delta.ingest_ns, 1, "no", 4300),
        traded(delta.ingest_ns, 2, "yes", 4500, block=True),
        traded(rows[-1].ingest_ns + 5, 3, "yes", 4400),
        traded(rows[-1].ingest_ns + 5, 3, "yes", 4400),  # the same again
    ]
    lone = msgspec.structs.replace(trades[0], market_ticker="KXZ-9", trade_id=trade_id(9))
    dates: dict[str, list[TradeRow]] = {}
    for trade in [lone, *trades]:
        dates.setdefault(date_name(trade.ingest_ns // 1000), []).append(trade)
    for date, of_date in dates.items():
        write_rows(source / "trades" / date / "part-000000_000000.parquet", "trades", of_date)
    return source, trades, delta


def test_trades_stand_before_what_they_changed(tmp_path: Path) -> None:
    source, _, delta = with_trades(tmp_path)
    for max_rows in (10**6, 10):
        out = tmp_path / f"out-{max_rows}"
        report = export("hftbacktest", source, out, max_rows=max_rows, quiet=True)
        events = np.concatenate([load(file.path) for file in report.files if file.market == TICKERS[0]])
        at_trades = np.flatnonzero(events["ev"] & 0xFF == hft.TRADE_EVENT)
        assert sum(file.trades for file in report.files) == len(at_trades) == 2, "no block trade"
        assert [float(events[at]["px"]) for at in at_trades] == [0.43, 0.44]
        assert [float(events[at]["qty"]) for at in at_trades] == [1.5, 3.5]
        assert int(events[at_trades[0]]["ev"]) & hft.SELL_EVENT
        assert int(events[at_trades[1]]["ev"]) & hft.BUY_EVENT
        after = events[at_trades[0] + 1]
        assert (int(after["ev"]) & 0xFF, int(after["local_ts"])) == (hft.DEPTH_EVENT, delta.ingest_ns)
        assert (np.diff(events["local_ts"]) >= 0).all()
        assert (np.diff(events["exch_ts"]) >= 0).all()
        assert report.lone_trades == 1
        assert "1 trades of markets without a book" in describe(report)
    some = export(
        "hftbacktest", source, tmp_path / "some", markets=[TICKERS[0]], end=delta.ingest_ns, quiet=True
    )
    assert sum(file.trades for file in some.files) == some.lone_trades == 0, "trades end where the books do"


def test_a_trade_is_in_one_date_of_an_export_and_no_date_is_passed_over_in_silence(tmp_path: Path) -> None:
    """A trade that came again hours later; trades of dates on which no market had an event."""
    rows = random_rows(6, 200, step_ns=2 * 10**12)
    source = write_events(tmp_path / "data", rows)
    first = next(row.ingest_ns for row in rows if row.ingest_ns % DAY_NS > DAY_NS // 3)
    days_ns = 5 * DAY_NS
    trades = [
        traded(rows[0].ingest_ns - days_ns, 7, "yes", 4100),  # before all events
        traded(first, 1, "no", 4300),
        traded(rows[-1].ingest_ns, 1, "no", 4300),
        traded(rows[-1].ingest_ns, 2, "yes", 4400),
        traded(rows[-1].ingest_ns + days_ns, 8, "yes", 4500),  # behind them
        traded(rows[-1].ingest_ns + days_ns, 9, "yes", 4500, block=True),
    ]
    dates: dict[str, list[TradeRow]] = {}
    for trade in trades:
        dates.setdefault(date_name(trade.ingest_ns // 1000), []).append(trade)
    assert len(dates) == 4
    for date, of_date in dates.items():
        write_rows(source / "trades" / date / "part-000000_000000.parquet", "trades", of_date)
    report = export("nautilus", source, tmp_path / "out", quiet=True)
    found = [pq.read_table(file.path) for file in report.files if file.trades]
    ids = [one for table in found for one in table.column("trade_id").to_pylist()]
    assert ids == [trade_id(1), trade_id(2)]
    assert report.lone_trades == 2


def test_trades_in_the_other_forms(tmp_path: Path) -> None:
    source, trades, delta = with_trades(tmp_path)
    report = export("csv", source, tmp_path / "csv", markets=[TICKERS[0]], quiet=True)
    told = [line for file in report.files if file.trades for line in read_csv(file.path)]
    assert [line["trade_id"] for line in told] == [trade.trade_id for trade in trades[:3]]
    assert [(line["taker_side"], line["yes_price"], line["qty"]) for line in told] == [
        ("no", "0.4300", "1.50"),
        ("yes", "0.4500", "2.50"),
        ("yes", "0.4400", "3.50"),
    ]
    assert [line["is_block"] for line in told] == ["false", "true", "false"]
    assert sum(file.trades for file in report.files) == 3

    report = export("nautilus", source, tmp_path / "nautilus", markets=[TICKERS[0]], quiet=True)
    files = [file for file in report.files if file.trades]
    assert all(file.path.endswith(".trades.parquet") for file in files)
    table = pa.concat_tables([pq.ParquetFile(file.path).read() for file in files])
    whole = [(name, pa.int64() if name.startswith("ts") else table[name].type) for name in table.column_names]
    found = table.cast(pa.schema(whole)).to_pylist()
    assert [(row["aggressor_side"], row["price"], row["size"]) for row in found] == [
        ("SELLER", 0.43, 1.5),
        ("BUYER", 0.44, 3.5),
    ]
    assert found[0]["trade_id"] == trades[0].trade_id
    assert found[0]["ts_init"] == delta.ingest_ns
    assert found[0]["ts_event"] == trades[0].ts_us * 1000


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_trades_of_a_database_are_exported_as_those_of_files(
    tmp_path: Path, open_database: Callable[[], Client], engine_url: str
) -> None:
    source, *_ = with_trades(tmp_path)
    client = open_database()
    for table in ("orderbook", "trades"):
        for path in sorted((source / table).rglob("*.parquet")):
            rows = pq.ParquetFile(path).read()
            client.insert_arrow("orderbook_events" if table == "orderbook" else table, rows)
    here = export("hftbacktest", source, tmp_path / "here", markets=[TICKERS[0]], quiet=True)
    there = export(
        "hftbacktest",
        engine_url,
        tmp_path / "there",
        markets=[TICKERS[0]],
        quiet=True,
        database=client.database,
    )
    assert [file.trades for file in here.files] == [file.trades for file in there.files]
    assert sum(file.trades for file in there.files) == 2
    for one, other in zip(here.files, there.files, strict=True):
        assert (load(one.path) == load(other.path)).all()


def test_trades_without_their_columns_are_told(tmp_path: Path) -> None:
    source = write_events(tmp_path / "data", random_rows(6, 20, step_ns=10**8))
    path = tmp_path / "data" / "trades" / "date=2025-11-30" / "part-235950_000000.parquet"
    write_rows(path, "trades", [], columns=pa.table({"market_ticker": ["KXA-1"]}))
    with pytest.raises(ReplayError, match="not the columns of this table: conn_id is missing"):
        export("hftbacktest", source, tmp_path / "out", quiet=True)


def read_csv(path: str) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(io.StringIO(file.read())))


def test_csv_has_every_event_with_exact_decimals(tmp_path: Path) -> None:
    rows = random_rows(9, 150)
    source = write_events(tmp_path / "data", rows)
    report = export("csv", source, tmp_path / "out", quiet=True)
    assert [file.date for file in report.files] == ["2025-11-30", "2025-12-01"]
    told = [line for file in report.files for line in read_csv(file.path)]
    assert len(told) == report.rows == len(rows)
    for line, row in zip(told, rows, strict=True):
        assert line["type"] == ("snapshot", "delta", "clear", "gap")[row.kind]
        assert (line["market_ticker"], line["side"]) == (TICKERS[row.market], ("yes", "no")[row.side])
        assert Decimal(line["price"]) * 10_000 == row.price_e4
        assert Decimal(line["qty"]) * 100 == row.qty_e2
        assert line["ingest_ts"].endswith(f".{row.ingest_ns % 10**9:09d}Z")


def test_csv_of_the_best_bid_and_ask(tmp_path: Path) -> None:
    rows = random_rows(10, 150)
    report = export("csv", write_events(tmp_path / "data", rows), tmp_path / "out", bbo=True, quiet=True)
    told = [line for file in report.files for line in read_csv(file.path)]
    reference = Reference()
    for row in rows:
        if row.market == 0:
            reference.apply(row)
    last = [line for line in told if line["market"] == TICKERS[0]][-1]
    assert (last["known"] == "true") == (reference.book is not None)
    prices = tuple(
        None if not text else int(Decimal(text) * 10_000) for text in (last["bid_price"], last["ask_price"])
    )
    assert prices == reference.best


def test_nautilus_deltas_give_the_book(tmp_path: Path) -> None:
    rows = random_rows(11, 200)
    source = write_events(tmp_path / "data", rows)
    report = export("nautilus", source, tmp_path / "out", markets=[TICKERS[1]], quiet=True)
    reference = Reference()
    for row in rows:
        if row.market == 1:
            reference.apply(row)
    book: dict[tuple[str, float], float] = {}
    for file in report.files:
        for delta in pq.read_table(file.path).to_pylist():
            if delta["action"] == "CLEAR":
                assert delta["side"] == "NO_ORDER_SIDE"
                book.clear()
            elif delta["action"] == "DELETE":
                del book[delta["side"], delta["price"]]
            else:
                assert delta["action"] in ("ADD", "UPDATE")
                book[delta["side"], delta["price"]] = delta["size"]
        assert delta["flags"] & 128
    sides = reference.book or ({}, {})
    expected = {("BUY", p / 10_000): q / 100 for p, q in sides[0].items()}
    expected |= {("SELL", (10_000 - p) / 10_000): q / 100 for p, q in sides[1].items()}
    assert book == expected


# --- what goes wrong --------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    source = write_events(tmp_path / "data", random_rows(3, 20))
    export("csv", source, tmp_path / "out", quiet=True)
    with pytest.raises(ExportError, match="is there already"):
        export("csv", source, tmp_path / "out", quiet=True)
    assert export("csv", source, tmp_path / "out", overwrite=True, quiet=True).rows
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_an_unknown_market_is_told_with_those_of_a_similar_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_events(tmp_path / "data", random_rows(3, 50))
    for form in ("hftbacktest", "csv"):
        with pytest.raises(ExportError, match=r"nothing is recorded of KXA-2 in .*; close to it: KXA-1"):
            export(form, source, tmp_path / "out", markets=["KXA-2"], quiet=True)
    with pytest.raises(ExportError, match=r"recorded: KXA-1, KXB-2\.50"):
        export("csv", source, tmp_path / "out", markets=["ZZZ"], quiet=True)
    command = ["export", "csv", "KXA-2", "--from", str(source), "--out", str(tmp_path / "out")]
    assert main([*command, "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("kalshi-fast: MARKET: nothing is recorded of KXA-2")


def test_forms_and_options_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FORM: expected one of hftbacktest, csv, nautilus"):
        export("xml", tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="--bbo: only csv"):
        export("nautilus", tmp_path, tmp_path, bbo=True)


def test_the_command_gives_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_events(tmp_path / "data", random_rows(12, 100))
    command = [
        "export",
        "hftbacktest",
        "--from",
        str(source),
        "--out",
        str(tmp_path / "out"),
        "--json",
        "--quiet",
    ]
    assert main(command) == 0
    told, _, figures = capsys.readouterr().out.rstrip().rpartition("\n")
    assert "tick_size=0.01" in told
    report = json.loads(figures)
    assert report["rows"] == sum(file["rows"] for file in report["files"])
