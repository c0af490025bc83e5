"""Every example query of the README, docs/ and sql/ runs, and its answer is what the books were.

The queries are taken from the files; one that has no expectation here fails. The truth is told by a plain
reader of the events in the order in which they were written, and by the recorder's own books.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

import timeline
from examples import Example, examples, missed, one_line
from frames import delta, snapshot
from journals import Source, deliver
from kalshi_fast import __version__, migrations
from kalshi_fast._book import NO, YES
from kalshi_fast.channels.reference_rows import ReferenceRow
from kalshi_fast.channels.rows import MarketRow, TickerRow, TradeRow
from kalshi_fast.journal import Cursor
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from timeline import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clickhouse_connect.driver.client import Client

S = 10**9
START_NS = 1_769_860_800 * S  # 2026-01-31 12:00:00 UTC, as in the examples
END_NS = START_NS + 60 * S
FED, EMPTY, LOST, LATE = "FEDFUNDS-DEC25", "KXEMPTY", "KXLOST", "KXLATE"
KINDS = ("snapshot", "delta", "clear", "gap")
SIDES = ("yes", "no")
Rows: TypeAlias = list[tuple[Any, ...]]


def _trade(number: int, at_s: float, side: str, price: int, qty: int, ticker: str = FED) -> TradeRow:
    ns = START_NS + round(at_s * S)
    ids = (9, 1, number, str(uuid.UUID(int=number)))
    return TradeRow(*ids, ticker, side, False, price, qty, ns // 1000, ns + 20_000_000)


TRADES = (
    _trade(1, -1, "yes", 9999, 100),  # before the minute that is asked for
    _trade(2, 0, "yes", 4700, 150),
    _trade(3, 3, "no", 4605, 25),
    _trade(4, 29.999, "yes", 4800, 1_000_000),
    _trade(5, 30, "no", 4400, 333),
    _trade(6, 30, "no", 4500, 1, EMPTY),
    _trade(7, 60, "yes", 1, 100),  # behind it
)


def _ticker(at_s: float, price: int | None, volume: int, ticker: str = FED) -> TickerRow:
    ns = START_NS + round(at_s * S)
    market = (9, 2, str(uuid.UUID(int=1)), ticker)
    return TickerRow(*market, price, 4500, 4700, 1, 2, 3, volume, 7, 8, 9, ns // 1000, ns)


def _index(at_s: float, value: str) -> ReferenceRow:
    ns = START_NS + round(at_s * S)
    head = (9, 3, 1, "cfbenchmarks_value", "BRTI")
    return ReferenceRow(
        *head, Decimal(value), Decimal(value) - 1, 60, None, None, ns // 10**6, None, ns // 1000, ns
    )


INDEX = (
    _index(-1, "90000.00"),  # before the minute that is asked for
    _index(1, "110234.5"),
    _index(5, "110233.25"),
    _index(29.9, "110240.125"),
    _index(30, "110239"),
    _index(60, "1.00"),  # behind it
)
TICKERS = (_ticker(1, 4600, 100), _ticker(2, 4605, 125), _ticker(2, None, 0, EMPTY))
MARKETS = (
    MarketRow(FED, event_ticker="FEDFUNDS", title="Before", status="active", version=1),
    MarketRow(
        FED,
        event_ticker="FEDFUNDS",
        title="Fed funds above 4 %?",
        status="finalized",
        close_ts_ms=START_NS // 10**6,
        result="yes",
        version=2,
    ),
    MarketRow(EMPTY, event_ticker="OTHER", version=1),
)


@dataclass
class World:
    """What was recorded, and where it can be asked for."""

    client: Client
    source: Source
    sink: ClickHouseSink
    reader: Cursor
    events: dict[str, list[Event]] = field(default_factory=dict)
    lags_us: dict[int, list[int]] = field(default_factory=dict)

    def store(self, *payloads: bytes, at_s: float, every_ns: int = 1000) -> None:
        self.source.now = START_NS + round(at_s * S)
        self.source.feed(*payloads, every_ns=every_ns)
        names = ("market_ix", "ingest_ns", "seq", "type", "side", "price_e4", "qty_e2", "conn_id", "ts_us")
        for entry in self.reader.take(10**6):
            if entry.events is None:
                continue
            columns = [entry.events.column(name).to_pylist() for name in names]
            for market, at_ns, seq, kind, side, price, qty, conn_id, ts_us in zip(*columns, strict=True):
                ticker = self.source.books.tickers[market]
                event = Event(at_ns, seq, KINDS[kind], SIDES[side], price, qty)
                self.events.setdefault(ticker, []).append(event)
                if event.kind == "delta":
                    self.lags_us.setdefault(conn_id, []).append(at_ns // 1000 - ts_us)
        deliver(self.sink)

    def book(self, ticker: str) -> timeline.Book:
        """The recorder's own book."""
        ladders = self.source.books.by_ticker[ticker].book.ladders()
        return {(SIDES[side], price): size for side in (YES, NO) for price, size in ladders[side]}


@pytest.fixture(scope="module")
def world(engine_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A minute of four markets: one that trades and is lost for a while, one empty, one lost, one late."""
    client = clickhouse.connect(engine_url, user="default", password="", database="kalshi")
    source = Source(tmp_path_factory.mktemp("examples"), tickers=(FED, EMPTY, LOST, LATE))
    sink = ClickHouseSink(lambda: client, source.journal, source.position("clickhouse"))
    world = World(client, source, sink, Cursor(source.journal, 0))
    fed = {
        "yes": [("0.4500", "300.00"), ("0.4400", "10.50")],
        "no": [("0.5300", "120.50"), ("0.5000", "7.00")],
    }
    world.store(
        snapshot(1, FED, yes=fed["yes"], no=fed["no"]),
        snapshot(2, EMPTY, yes=[("0.0100", "1.00")]),
        snapshot(3, LOST, no=[("0.9000", "4.00")]),
        at_s=-30,
    )

    def change(seq: int, price: str, qty: str, side: str = "yes", *, at_s: float, lag_ms: int = 20) -> None:
        ts_ms = START_NS // 10**6 + round(at_s * 1000) - lag_ms
        world.store(delta(seq, price, qty, side, FED, ts_ms=ts_ms), at_s=at_s)

    change(4, "0.4600", "5.00", at_s=1)
    change(5, "0.4500", "-300.00", at_s=4, lag_ms=40)
    change(6, "0.4605", "0.25", at_s=12, lag_ms=30)
    world.store(delta(7, "0.0100", "-1.00", "yes", EMPTY), at_s=13)  # no time of the exchange
    change(8, "0.4605", "-0.25", at_s=14)
    change(9, "0.5350", "3.00", "no", at_s=15)
    change(11, "0.5350", "1.00", "no", at_s=23)  # 10 is missing
    # Levels vanish in the snapshot that repairs it.
    world.store(snapshot(12, FED, yes=[("0.4400", "9.00")], no=[("0.5000", "7.00")]), at_s=36)
    world.store(snapshot(13, EMPTY), at_s=37)
    world.store(snapshot(14, LATE, yes=[("0.3000", "2.00")], no=[("0.6500", "2.00")]), at_s=40)
    world.store(delta(15, "0.4400", "1.00", "yes", FED, ts_ms=(START_NS + 41 * S) // 10**6), at_s=41)
    world.store(b"not a frame", at_s=42)
    world.store(delta(16, "0.4400", "-10.00", "yes", FED, ts_ms=(START_NS + 50 * S) // 10**6), at_s=50.1)
    for table, rows in (
        ("trades", TRADES),
        ("tickers", TICKERS),
        ("markets", MARKETS),
        ("reference_prices", INDEX),
    ):
        for row in rows:
            source.recorder.keep(table, row)
            world.store(at_s=51)  # each in a part of its own, as it comes
    yield world
    client.command("DROP DATABASE kalshi")
    client.close()


# --- what the answers must be -----------------------------------------------------------------------------


def dollars(price_e4: int | None) -> Decimal | None:
    return None if price_e4 is None else Decimal(price_e4) / 10_000


def contracts(qty_e2: int | None) -> Decimal | None:
    return None if qty_e2 is None else Decimal(qty_e2) / 100


def moment(ns: Any) -> datetime:  # noqa: ANN401
    return datetime.fromtimestamp(ns // S, UTC).replace(tzinfo=None) + timedelta(microseconds=ns % S // 1000)


def best_now(world: World, *, exact_only: bool) -> Rows:
    rows: Rows = []
    for ticker in sorted(world.events):
        known = timeline.states(world.events[ticker], END_NS)[-1].book is not None
        assert known == (not world.source.books.by_ticker[ticker].book.stale)
        if known or not exact_only:
            book = world.book(ticker)
            bids, offers = (timeline.levels(book, side) for side in SIDES)
            bid, bid_size = bids[0] if bids else (None, None)
            no, ask_size = offers[0] if offers else (None, None)
            ask = None if no is None else 10_000 - no
            rows.append((ticker, dollars(bid), contracts(bid_size), dollars(ask), contracts(ask_size)))
    return rows


def latest_levels(world: World) -> Rows:
    book = world.book(FED)
    assert book == {
        key: qty for key, qty in (timeline.book_at(world.events[FED], END_NS) or {}).items() if qty
    }
    by_price = sorted(book.items(), key=lambda item: -item[0][1])
    return [(side, Decimal(price) / 100, contracts(qty)) for (side, price), qty in by_price]


def ladder(world: World) -> Rows:
    rows: Rows = []
    for side in SIDES:
        total = 0
        for price, qty in timeline.levels(world.book(FED), side):
            total += qty
            rows.append((side, dollars(price), contracts(qty), contracts(total)))
    return rows


def book_then(at_s: int) -> Callable[[World], Rows]:
    def rows(world: World) -> Rows:
        book = timeline.book_at(world.events[FED], START_NS + at_s * S)
        return [
            (side, dollars(price), contracts(qty))
            for side in SIDES
            for price, qty in timeline.levels(book, side)
        ]

    return rows


def gaps(world: World) -> Rows:
    rows = [
        (ticker, moment(since), until and moment(until), seq)
        for ticker, events in world.events.items()
        for since, until, seq in timeline.gaps(events)
    ]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def known_time(world: World) -> Rows:
    rows = []
    for ticker, events in sorted(world.events.items()):
        known_ns = timeline.known_ns(events, START_NS, END_NS)
        lost = [gap for gap in timeline.gaps(events) if START_NS <= gap[0] < END_NS]
        rows.append((ticker, Decimal(known_ns * 10**6 // (60 * S)) / 10**6, len(lost)))
    return rows


def best_over_time(world: World) -> Rows:
    rows = []
    for since, until, exact, bid, ask in timeline.best_over_time(world.events[FED], START_NS, END_NS):
        assert bid is None or isinstance(bid, int)
        assert ask is None or isinstance(ask, int)
        both = None if bid is None or ask is None else (Decimal(bid + ask) / 20_000, dollars(ask - bid))
        rows.append(
            (moment(since), moment(until), exact, dollars(bid), dollars(ask), *(both or (None, None)))
        )
    return rows


def bars(every_s: int, *, spreads: bool) -> Callable[[World], Rows]:
    def scaled(value: Any, scale: int) -> Decimal | None:  # noqa: ANN401
        return None if value is None else Decimal(value) / scale

    def rows(world: World) -> Rows:
        found: Rows = []
        for bar in timeline.ohlc(world.events[FED], START_NS, END_NS, every_s * S):
            since, *values, known, _ = bar
            mids = [scaled(value, 20_000) for value in values[:4]]
            low_high = [scaled(values[6], 10_000), scaled(values[5], 10_000)] if spreads else []
            found.append((moment(since), *mids, *low_high, known))
        return found

    return rows


def depth(world: World) -> Rows:
    rows = timeline.depth(world.events[FED], START_NS, END_NS, 10 * S, 100)
    return [(moment(at), *map(contracts, sizes[:4])) for at, *sizes in rows]  # type: ignore[arg-type]


def health(world: World) -> Rows:
    ((conn_id, lags),) = world.lags_us.items()
    timed = sorted(lag for lag in lags if lag)
    assert len(timed) == len(lags) - 1
    # Exact to a thousandth of the rank: with so few the very values.
    p50, p99 = timed[(len(timed) - 1) // 2], timed[-1]
    return [(conn_id, 1, 0, 1, 1, 0, p50, p99)]


def versions(world: World) -> Rows:
    rows = migrations.applied(world.client, "kalshi")
    return [(row.file, __version__, datetime.fromisoformat(row.applied_at)) for row in rows]


def in_the_minute() -> dict[str, list[TradeRow]]:
    found: defaultdict[str, list[TradeRow]] = defaultdict(list)
    for row in TRADES:
        if START_NS // 1000 <= row.ts_us < END_NS // 1000:
            found[row.market_ticker].append(row)
    return found


def trade_stats(world: World) -> Rows:
    rows: Rows = []
    for ticker, trades in sorted(in_the_minute().items()):
        qty = sum(row.qty_e2 for row in trades)
        vwap = sum(row.yes_price_e4 * row.qty_e2 for row in trades) * 100 // qty
        bought = sum(row.qty_e2 for row in trades if row.taker_side == "yes")
        rows.append((ticker, len(trades), contracts(qty), Decimal(vwap) / 10**6, contracts(bought)))
    return rows


def trade_bars(world: World) -> Rows:
    bars: defaultdict[int, list[TradeRow]] = defaultdict(list)
    for row in in_the_minute()[FED]:
        bars[row.ts_us // 30_000_000].append(row)
    rows: Rows = []
    for at, trades in sorted(bars.items()):
        prices = [row.yes_price_e4 for row in trades]
        spread = (prices[0], max(prices), min(prices), prices[-1])
        qty = sum(row.qty_e2 for row in trades)
        rows.append((moment(at * 30 * S), *map(dollars, spread), contracts(qty), len(trades)))
    return rows


def tickers_now(world: World) -> Rows:
    last = {row.market_ticker: row for row in TICKERS}
    return [
        (
            ticker,
            dollars(row.price_e4),
            *map(dollars, (row.yes_bid_e4, row.yes_ask_e4)),
            *map(contracts, (row.volume_e2, row.open_interest_e2)),
        )
        for ticker, row in sorted(last.items())
    ]


def markets_now(world: World) -> Rows:
    row = MARKETS[1]
    return [(FED, row.title, "finalized", moment(START_NS), "yes")]


def reference_now(world: World) -> Rows:
    last = INDEX[-1]
    return [(last.index_id, last.channel, last.value, last.avg_60s, moment(last.ts_us * 1000))]


def reference_bars(world: World) -> Rows:
    rows: Rows = []
    for bar in (INDEX[1:4], INDEX[4:5]):
        values = [row.value for row in bar if row.value is not None]
        since_ns = bar[0].ts_us * 1000 // (30 * S) * 30 * S
        rows.append((moment(since_ns), values[0], max(values), min(values), values[-1], len(values)))
    return rows


ANSWERS: dict[str, Callable[[World], Rows]] = {
    "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size FROM kalshi.best_bid_ask": (
        lambda world: best_now(world, exact_only=False)
    ),
    "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size FROM kalshi.best_bid_ask"
    " ORDER BY market_ticker LIMIT 5": lambda world: best_now(world, exact_only=False),
    "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size FROM kalshi.best_bid_ask WHERE exact"
    " ORDER BY market_ticker": lambda world: best_now(world, exact_only=True),
    "SELECT side, price, size FROM kalshi.latest_levels WHERE market_ticker = 'FEDFUNDS-DEC25'"
    " ORDER BY price DESC": latest_levels,
    "SELECT side, price_dollars, size, cumulative_size FROM kalshi.ladder"
    " WHERE market_ticker = 'FEDFUNDS-DEC25'": ladder,
    "SELECT side, price_dollars, size FROM kalshi.book_at(at = '2026-01-31 12:00:10')"
    " WHERE market_ticker = 'FEDFUNDS-DEC25'": book_then(10),
    "SELECT market_ticker, since, until, first_missing_seq FROM kalshi.gaps"
    " ORDER BY since, market_ticker": gaps,
    "SELECT market_ticker, known_share, gaps FROM kalshi.known_time(since = '2026-01-31 12:00:00',"
    " until = '2026-01-31 12:01:00') ORDER BY market_ticker": known_time,
    "SELECT since, until, exact, yes_bid, yes_ask, mid, spread FROM kalshi.best_over_time(market ="
    " 'FEDFUNDS-DEC25', since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00')"
    " ORDER BY n": best_over_time,
    "SELECT since, open, high, low, close, spread_low, spread_high, known_share FROM kalshi.mid_ohlc(market ="
    " 'FEDFUNDS-DEC25', since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 10)": (
        bars(10, spreads=True)
    ),
    "SELECT since, open, high, low, close, known_share FROM kalshi.mid_ohlc(market = 'FEDFUNDS-DEC25',"
    " since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 30)": bars(30, spreads=False),
    "SELECT at, yes_size, no_size, yes_size_within, no_size_within FROM kalshi.depth_over_time(market ="
    " 'FEDFUNDS-DEC25', since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 10,"
    " within_e4 = 100)": depth,
    "SELECT conn_id, connects, disconnects, gaps, rejects, handovers, lag_p50_us, lag_p99_us"
    " FROM kalshi.health ORDER BY conn_id": health,
    "SELECT market_ticker, title, status, close_ts, result FROM kalshi.markets_now"
    " WHERE event_ticker = 'FEDFUNDS' ORDER BY market_ticker": markets_now,
    "SELECT market_ticker, price, yes_bid, yes_ask, volume, open_interest FROM kalshi.tickers_now"
    " ORDER BY market_ticker": tickers_now,
    "SELECT market_ticker, trades, volume, vwap, bought_yes FROM kalshi.trade_stats(since ="
    " '2026-01-31 12:00:00', until = '2026-01-31 12:01:00') ORDER BY market_ticker": trade_stats,
    "SELECT since, open, high, low, close, volume, trades FROM kalshi.trade_ohlc(market = 'FEDFUNDS-DEC25',"
    " since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 30)": trade_bars,
    "SELECT file, applied_by, applied_at FROM kalshi.schema_version FINAL ORDER BY number": versions,
}
ANSWERS |= {
    "SELECT index_id, channel, value, avg_60s, ts FROM kalshi.reference_now ORDER BY index_id, channel": (
        reference_now
    ),
    "SELECT since, open, high, low, close, ticks FROM kalshi.reference_ohlc(index = 'BRTI',"
    " since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 30)": reference_bars,
}
# Of a market and a moment that this world has not: that they can be asked is all that is looked at.
NOT_HERE = {
    "SELECT mid.since AS second, mid.close AS mid, brti.close AS brti"
    " FROM kalshi.mid_ohlc(market = 'KXBTC15M-26SEP261845-45', since = '2026-09-26 22:30:00',"
    " until = '2026-09-26 22:45:00', every_s = 1) AS mid"
    " LEFT JOIN kalshi.reference_ohlc(index = 'BRTI', since = '2026-09-26 22:30:00',"
    " until = '2026-09-26 22:45:00', every_s = 1) AS brti ON brti.since = mid.since ORDER BY second",
    "SELECT index_id, ts, avg_final_60s FROM kalshi.reference_prices WHERE channel = 'cfbenchmarks_value'"
    " AND index_id = 'BRTI' AND avg_final_60s_ticks = 60 ORDER BY ts",
}
COMMANDS = {"ALTER TABLE kalshi.orderbook_events MATERIALIZE INDEX by_ticker"}


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example.file}: {example.sql[:60]}")
def test_the_answer_is_what_the_books_were(world: World, example: Example) -> None:
    if example.sql in COMMANDS:
        world.client.command(f"{example.sql} SETTINGS mutations_sync = 2")
        return
    if example.sql in NOT_HERE:
        world.client.query(example.sql)
        return
    assert example.sql in ANSWERS, f"{example.file} has an example without an expectation: {example.sql}"
    expected = ANSWERS[example.sql](world)
    rows = [tuple(map(_naive, row)) for row in world.client.query(example.sql).result_rows]
    if "ORDER BY" not in example.sql and "best_bid_ask" in example.sql:
        rows.sort()
    assert rows == expected
    assert rows, "an example that finds nothing shows nothing"


def _naive(value: Any) -> Any:  # noqa: ANN401
    return (
        value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
    )


def test_no_example_is_overlooked_and_no_expectation_is_left_over() -> None:
    assert missed() == []
    found = {example.sql for example in examples()}
    assert set(ANSWERS) | COMMANDS | NOT_HERE == found
    assert all(one_line(sql) == sql for sql in found)


def test_every_view_and_table_of_events_has_an_example() -> None:
    shown = " ".join(example.sql for example in examples())
    for view in migrations.views() - {"market_rows"}:  # what the others are computed from
        assert f"kalshi.{view}" in shown


def test_what_happened_in_the_world_is_what_the_examples_need(world: World) -> None:
    """The scenario has the cases that a wrong view would get wrong."""
    assert timeline.book_at(world.events[FED], START_NS + 30 * S) is None
    assert timeline.states(world.events[EMPTY], END_NS)[-1].book == {}
    assert timeline.states(world.events[LOST], END_NS)[-1].book is None
    assert world.events[LATE][0].at_ns > START_NS
    assert not timeline.levels(world.book(FED), "yes"), "one side alone is left"
    assert any(bar[2] != bar[3] for bar in timeline.ohlc(world.events[FED], START_NS, END_NS, 10 * S))
