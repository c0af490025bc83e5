"""The views answer as a plain reader of the events does, whatever happened to the book."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import timeline
from conftest import FEW
from frames import MARKET_ID
from kalshi_fast.sinks import clickhouse
from timeline import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clickhouse_connect.driver.client import Client

S = 10**9
START_NS = 1_769_860_800 * S  # 2026-01-31 12:00:00 UTC
COLUMNS = ["type", "conn_id", "sid", "seq", "market_id", "market_ticker", "side", "price_e4", "qty_e2"]
PRICES = (1, 800, 805, 5000, 9999)
names = itertools.count()


def moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // S, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{ns % S:09d}"


def store(client: Client, ticker: str, events: list[Event]) -> None:
    """The rows as they are, in an order of no meaning."""
    values = ", ".join(
        f"('{e.kind}', 1, 1, {e.seq}, '{MARKET_ID}', '{ticker}', '{e.side}', {e.price_e4}, {e.qty_e2},"
        f" '{moment(e.at_ns)}', '{moment(e.at_ns)}')"
        for e in sorted(events, key=lambda e: (e.price_e4, e.kind))
    )
    client.command(f"INSERT INTO orderbook_events ({', '.join(COLUMNS)}, ts, ingest_ts) VALUES {values}")


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[Client]:
    client = clickhouse.connect(engine_url, user="default", password="", database="views")
    yield client
    client.close()


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Frames of one market: snapshots, changes, gaps; some read at once, some after a long silence."""
    events: list[Event] = []
    book: dict[tuple[str, int], int] | None = None
    at_ns = START_NS + draw(st.integers(-20, 5)) * S
    for seq in range(1, 1 + draw(st.integers(0, 25))):
        at_ns += draw(st.sampled_from([0, 0, 1, 7, 400_000_000, S, 3 * S]))
        kind = draw(st.sampled_from(["snapshot", "gap", "delta", "delta", "delta", "delta"]))
        if kind == "snapshot":
            keys = draw(
                st.lists(st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(PRICES)), unique=True)
            )
            book = {key: draw(st.integers(1, 500)) for key in keys}
            events.append(Event(at_ns, seq, "clear"))
            events += [Event(at_ns, seq, "snapshot", *key, size) for key, size in book.items()]
        elif kind == "gap":
            book = None
            events.append(Event(at_ns, seq, "gap"))
        elif book is None:
            # Nothing can be known of it: a reader must leave it out.
            events.append(Event(at_ns, seq, "delta", "yes", draw(st.sampled_from(PRICES)), 100))
        else:
            key = (draw(st.sampled_from(["yes", "no"])), draw(st.sampled_from(PRICES)))
            held = book.get(key, 0)
            size = draw(st.sampled_from([0, held + 50, 1]))
            if size != held:
                events.append(Event(at_ns, seq, "delta", *key, size - held))
                book[key] = size
    return events


WINDOWS = st.tuples(
    st.sampled_from([0, 1, 400_000_000, 5 * S]), st.sampled_from([1, 2 * S, 10 * S, 10 * S + 1])
)


@settings(max_examples=10 if FEW else 60)
@given(histories(), WINDOWS, st.sampled_from([1, 3, 60]), st.sampled_from([0, 5, 800, 10_000]))
def test_views_over_time_answer_as_a_reader_does(
    client: Client, events: list[Event], window: tuple[int, int], every_s: int, within_e4: int
) -> None:
    ticker = f"H-{next(names)}"
    if events:
        store(client, ticker, events)
    since_ns = START_NS + window[0]
    until_ns = since_ns + window[1]
    asked = {
        "market": ticker,
        "since": moment(since_ns),
        "until": moment(until_ns),
        "every_s": every_s,
        "within_e4": within_e4,
    }
    stretch = "market = {market:String}, since = {since:String}, until = {until:String}"
    every = "every_s = {every_s:UInt32}"

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in client.query(sql, parameters=asked).result_rows]

    ns = "toUnixTimestamp64Nano"
    assert ask(
        f"SELECT {ns}(since), {ns}(until), exact, toInt32(yes_bid * 10000), toInt32(yes_ask * 10000)"
        f" FROM best_over_time({stretch}) ORDER BY n"
    ) == timeline.best_over_time(events, since_ns, until_ns)
    mids = "toInt32(open * 20000), toInt32(high * 20000), toInt32(low * 20000), toInt32(close * 20000)"
    spreads = ", ".join(f"toInt32(spread_{what} * 10000)" for what in ("open", "high", "low", "close"))
    bars = ask(
        f"SELECT {ns}(since), {mids}, {spreads}, known_share, quoted_share FROM mid_ohlc({stretch}, {every})"
    )
    assert bars == timeline.ohlc(events, since_ns, until_ns, every_s * S)
    sizes = ", ".join(
        f"toInt64({side}_size{what} * 100)" for what in ("", "_within") for side in ("yes", "no")
    )
    assert ask(
        f"SELECT {ns}(at), {sizes}, yes_levels, no_levels"
        f" FROM depth_over_time({stretch}, {every}, within_e4 = {{within_e4:UInt16}})"
    ) == timeline.depth(events, since_ns, until_ns, every_s * S, within_e4)
    assert ask(
        f"SELECT {ns}(since), {ns}(until), first_missing_seq FROM gaps"
        " WHERE market_ticker = {market:String}"
    ) == timeline.gaps(events)
    known = ask(
        "SELECT known_ns, unknown_ns, known_share"
        " FROM known_time(since = {since:String}, until = {until:String})"
        " WHERE market_ticker = {market:String}"
    )
    truth = timeline.known_ns(events, since_ns, until_ns)
    length = until_ns - since_ns
    share = Decimal(truth * 1_000_000 // length) / 1_000_000
    marks = [event for event in events if event.kind in ("clear", "gap") and event.at_ns < until_ns]
    assert known == ([(truth, length - truth, share)] if marks else [])
    levels = ask(
        "SELECT side, toInt32(price_dollars * 10000), toInt64(size * 100) FROM book_at(at = {until:String})"
        " WHERE market_ticker = {market:String}"
    )
    book = timeline.book_at(events, until_ns)
    assert levels == [(side, *level) for side in ("yes", "no") for level in timeline.levels(book, side)]


def test_a_bar_that_was_unknown_says_so_and_invents_nothing(client: Client) -> None:
    level = [
        Event(START_NS, 1, "snapshot", "yes", 4500, 100),
        Event(START_NS, 1, "snapshot", "no", 5300, 100),
    ]
    store(
        client,
        "BARS",
        [
            Event(START_NS, 1, "clear"),
            *level,
            Event(START_NS + 15 * S, 2, "gap"),
            Event(START_NS + 35 * S, 1, "clear"),  # and an empty book
        ],
    )
    sql = (
        "SELECT open, close, spread_high, known_share, quoted_share FROM mid_ohlc(market = 'BARS',"
        " since = '2026-01-31 12:00:00', until = '2026-01-31 12:00:45', every_s = 10)"
    )
    D = Decimal  # noqa: N806
    assert client.query(sql).result_rows == [
        (D("0.46"), D("0.46"), D("0.02"), 1, 1),
        (D("0.46"), D("0.46"), D("0.02"), D("0.5"), D("0.5")),
        (None, None, None, 0, 0),
        (None, None, None, D("0.5"), 0),
        (None, None, None, 1, 0),
    ]


def test_half_a_tick_is_not_rounded(client: Client) -> None:
    levels = [Event(START_NS, 1, "snapshot", "yes", 4501, 1), Event(START_NS, 1, "snapshot", "no", 5300, 1)]
    store(client, "HALF", [Event(START_NS, 1, "clear"), *levels])
    sql = (
        "SELECT DISTINCT open, mid FROM mid_ohlc(market = 'HALF', since = '2026-01-31 12:00:00',"
        " until = '2026-01-31 12:00:01', every_s = 1), best_over_time(market = 'HALF',"
        " since = '2026-01-31 12:00:00', until = '2026-01-31 12:00:01')"
    )
    assert client.query(sql).result_rows == [(Decimal("0.46005"), Decimal("0.46005"))]
