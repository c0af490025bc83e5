"""Every recorded body of REST through our own readers: nothing of it is lost, and rows say what it says."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest

from kalshi_fast.channels.backfill import filled_row
from kalshi_fast.channels.catalogue import LONG_CHARS, Catalogue
from kalshi_fast.channels.messages import LifecycleBody
from kalshi_fast.channels.rows import MarketRow, arrow
from kalshi_fast.errors import RestError
from kalshi_fast.rest_bodies import (
    EVENTS,
    MARKETS,
    SERIES,
    TRADES,
    Elements,
    EventPage,
    MarketPage,
    TradePage,
    Unread,
    error_text,
    is_combination,
    read_page,
    series_of,
)
from kalshi_fast.statuses import FILTERS
from recordings import DIRECTORY

FILES: Final = sorted((DIRECTORY / "rest").glob("*.json"))
BODIES: Final = {path.name: json.loads(path.read_bytes()) for path in FILES}


def elements(key: str, body: Any = None) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Every object of this kind, wherever it stands in the bodies."""
    found = []
    for value in BODIES.values() if body is None else [body]:
        stack = [value]
        while stack:
            at = stack.pop()
            if isinstance(at, dict):
                found += [at] if key in at and not isinstance(at[key], dict | list) else []
                stack += at.values()
            elif isinstance(at, list):
                stack += at
    return found


# Only a market says its type, only an event whether its markets exclude each other, only a series how often.
THERE_ARE: Final = {
    "market": elements("market_type"),
    "event": elements("mutually_exclusive"),
    "series": elements("frequency"),
    "trade": elements("trade_id"),
}
READERS: Final[dict[str, Elements[Any]]] = {
    "market": MARKETS,
    "event": EVENTS,
    "series": SERIES,
    "trade": TRADES,
}


def test_there_is_something_to_read() -> None:
    assert {kind: len(found) for kind, found in THERE_ARE.items()} == {
        "market": 117,
        "event": 39,
        "series": 4,
        "trade": 1,
    }


@pytest.mark.parametrize("kind", READERS)
def test_each_recorded_object_is_read_whole(kind: str) -> None:
    unread = Unread()
    for told in THERE_ARE[kind]:
        read = READERS[kind].read(msgspec.Raw(json.dumps(told).encode()), unread)
        assert read is not None
        for name in read.__struct_fields__:
            expected, got = told.get(name), getattr(read, name)
            if isinstance(expected, list):
                expected, got = len(expected), len(got)
            elif isinstance(expected, float):
                expected = Decimal(str(expected))
            assert got == (False if name.startswith("is_") and expected is None else expected), name
    assert unread.sentence() == ""


def e4(text: str) -> int:
    return int(Decimal(text) * 10_000)


def ms(text: str | None) -> int | None:
    return None if text is None else int(datetime.fromisoformat(text).timestamp() * 1000)


def test_each_market_becomes_a_row_that_says_what_it_says() -> None:
    catalogue = Catalogue()
    rows = []
    for told in THERE_ARE["market"]:
        market = MARKETS.read(msgspec.Raw(json.dumps(told).encode()), Unread())
        assert market is not None
        row = catalogue.learn(market, 10)
        if row is None:  # the same market stands in two bodies
            continue
        rows.append(row)
        for name in (
            "event_ticker",
            "title",
            "yes_sub_title",
            "no_sub_title",
            "status",
            "strike_type",
            "result",
        ):
            assert getattr(row, name) == told.get(name, "")
        for name in ("rules_primary", "rules_secondary", "expiration_value", "mve_collection_ticker"):
            assert getattr(row, name) == told.get(name, "")
        assert row.subtitle == told.get("subtitle", told["yes_sub_title"])
        assert row.series_ticker == told["event_ticker"].split("-")[0]
        assert (row.exchange_index, row.is_provisional) == (
            told.get("exchange_index"),
            told.get("is_provisional", False),
        )
        for name in ("custom_strike", "mve_selected_legs", "price_ranges"):
            text = getattr(row, name)
            assert (json.loads(text) if text else None) == told.get(name)
        value = told.get("settlement_value_dollars")
        assert row.settlement_value_e4 == (None if value is None else e4(value))
        assert row.open_ts_ms == ms(told["open_time"])
        assert row.close_ts_ms == ms(told["close_time"])
        assert row.expiration_ts_ms == ms(told["latest_expiration_time"]) == ms(told["expiration_time"])
        assert row.expected_expiration_ts_ms == ms(told["expected_expiration_time"])
        assert row.settled_ts_ms == ms(told.get("settlement_ts"))
        assert is_combination(market) == told["ticker"].startswith("KXMVE") == ("mve_selected_legs" in told)
        assert told["status"] in [status for statuses in FILTERS.values() for status in statuses]
    assert len(rows) > 100
    arrow("markets", rows).validate(full=True)


def test_the_series_of_an_event_ticker_is_the_one_that_the_event_names() -> None:
    assert len(THERE_ARE["event"]) == 39
    for told in THERE_ARE["event"]:
        assert told["series_ticker"] == told["event_ticker"].split("-")[0]
        market = MARKETS.read(
            msgspec.Raw(json.dumps({"ticker": "X", "event_ticker": told["event_ticker"]}).encode()), Unread()
        )
        assert market is not None
        assert series_of(market) == told["series_ticker"]


def test_the_recorded_trade_keeps_its_microseconds_and_its_side() -> None:
    (told,) = THERE_ARE["trade"]
    for left_out in ((), ("taker_side",), ("taker_outcome_side",), ("taker_side", "taker_outcome_side")):
        text = json.dumps({name: value for name, value in told.items() if name not in left_out})
        trade = TRADES.read(msgspec.Raw(text.encode()), Unread())
        assert trade is not None
        row = filled_row(trade, 5)
        assert (row.ts_us % 1_000_000, row.qty_e2, row.yes_price_e4) == (728_645, 894, 7700)
        assert (row.taker_side, row.is_block, row.market_ticker) == ("yes", False, "KXBTC15M-26SEP261900-00")
    crossed = {**told, "taker_outcome_side": "no"}
    trade = TRADES.read(msgspec.Raw(json.dumps(crossed).encode()), Unread())
    assert trade is not None
    assert filled_row(trade, 5).taker_side == "no", "the field that stays counts first"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_page_is_read_as_what_it_is(path: Any) -> None:  # noqa: ANN401
    body = path.read_bytes()
    told = BODIES[path.name]
    unread = Unread()
    for page, name in ((MarketPage, "markets"), (EventPage, "events"), (TradePage, "trades")):
        if isinstance(told, dict) and name in told and "event" not in told:
            read: Any = read_page(body, page, unread)
            assert len(getattr(read, name)) == len(told[name])
            assert read.cursor == told["cursor"]
        elif not isinstance(told, dict) or name not in told:
            with pytest.raises(RestError, match="expected an object with"):
                read_page(body, page, unread)
    assert unread.sentence() == ""


def test_recorded_errors_say_what_they_say() -> None:
    said = {name: error_text((DIRECTORY / "rest" / name).read_bytes()) for name in BODIES if "error" in name}
    assert said == {
        "error_400_invalid_status_filter_2026-08-08.json": "bad request: invalid status filter",
        "error_404_demo_2026-07-06.json": "not found",
        "error_429_2026-09-26.json": "too many requests",
    }


WRONG: Final[tuple[Any, ...]] = (
    None,
    "",
    7,
    1.5,
    True,
    [],
    {},
    [1],
    {"a": 1},
    "x" * 5000,
    "0001-01-01T00:00:00Z",
    -1,
    10**30,
)


@pytest.mark.parametrize("name", MARKETS._struct.__struct_fields__[1:])
def test_a_field_that_is_wrong_costs_itself(name: str) -> None:
    """Of a market: whatever stands in one field, all others of its row are as they were."""
    (told,) = [m for m in THERE_ARE["market"] if m["ticker"].endswith("2C66F170DF5")]
    told = {**told, "floor_strike": 1.5, "volume": 3}
    whole = row_of(told)
    depends = {"yes_sub_title": {"subtitle"}, "event_ticker": {"series_ticker"}}.get(name, set())
    for value in (*WRONG, ...):
        changed = {**told, name: value}
        if value is ...:
            del changed[name]
        row = row_of(changed)
        differ = {
            field for field in MarketRow.__struct_fields__ if getattr(row, field) != getattr(whole, field)
        }
        own = {name, f"{name}_ms", name.replace("_time", "_ts_ms"), "settled_ts_ms", "settlement_value_e4"}
        assert len(differ - depends) <= 1, (value, differ)
        assert differ <= depends | own, (value, differ)
        arrow("markets", [row]).validate(full=True)


def row_of(told: dict[str, Any]) -> MarketRow:
    page = json.dumps({"cursor": "", "markets": [told]}).encode()
    (market,) = read_page(page, MarketPage, Unread()).markets
    row = Catalogue().learn(market, 1)
    assert row is not None
    return row


def test_what_rest_says_and_what_is_announced_come_together() -> None:
    """REST's market of a combination, then its announced end; and what is too long to be kept as JSON."""
    catalogue = Catalogue()
    (told,) = [m for m in THERE_ARE["market"] if m["ticker"].endswith("2C66F170DF5")]
    market = MARKETS.read(msgspec.Raw(json.dumps(told).encode()), Unread())
    assert market is not None
    before = catalogue.learn(market, 10)
    assert before is not None
    after = catalogue.apply(LifecycleBody(market.ticker, "settled", settled_ts=1_789_000_000), 20)
    assert after == msgspec.structs.replace(
        before, status="finalized", settled_ts_ms=1_789_000_000_000, version=20
    )
    long = {**told, "custom_strike": {"x": "y" * LONG_CHARS}, "rules_primary": "z" * 2 * LONG_CHARS}
    assert (row_of(long).custom_strike, len(row_of(long).rules_primary)) == ("", LONG_CHARS)


def test_the_catalogue_is_bounded_by_its_texts_too() -> None:
    catalogue = Catalogue(most_chars=10_000)
    for number in range(100):
        text = json.dumps({"ticker": f"A-{number}", "rules_primary": f"{number} " + "r" * 500})
        market = MARKETS.read(msgspec.Raw(text.encode()), Unread())
        assert market is not None
        assert catalogue.learn(market, 1) is not None
        assert catalogue._chars == sum(len(row.rules_primary) for row in catalogue._rows.values()) <= 10_000
    assert 15 <= len(catalogue) <= 20
    assert "A-99" in catalogue
