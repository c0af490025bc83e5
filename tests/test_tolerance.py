"""What of a message cannot be used costs itself: every field of every message, spoilt in every way.

The frames are recorded ones (tests/exchange/SOURCES.md), but for the market, the subscription and the number,
which are those of the rig; where nobody has recorded a message, the example of Kalshi's AsyncAPI document.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import msgspec
import pytest

import test_channels
import test_recorder
from frames import EXAMPLES, snapshot
from kalshi_fast import wire
from kalshi_fast.channels.rows import TABLES
from kalshi_fast.losses import channel_of
from kalshi_fast.times import exchange_us
from recordings import capture

MISSING: Final = object()
SPOILS: Final = {
    "removed": MISSING,
    "null": None,
    "empty": "",
    "number": 17,
    "negative": -1,
    "huge": 2**70,
    "fraction": 0.123456,
    "text": "x y",
    "true": True,
    "list": [1],
    "object": {"a": 1},
}
NO_VALUES: Final = (MISSING, None, "")


class Base(NamedTuple):
    """A frame as it is, and what the rows have of its fields: ``shows`` says which columns may differ when
    that field is spoilt. ``essential``: without which it cannot be used."""

    name: str
    frame: dict[str, Any]
    essential: tuple[str, ...]
    shows: dict[str, tuple[str, ...]]
    also: tuple[str, ...] = ()  # fields of the message that this frame does not have

    @property
    def kind(self) -> str:
        return str(self.frame["type"])

    def fields(self) -> list[str]:
        return [*(f for f in self.frame if f not in ("type", "msg")), *self.frame["msg"], *self.also]

    def spoilt(self, field: str, value: object) -> bytes:
        frame = json.loads(json.dumps(self.frame))
        place = frame if field in ("sid", "seq", "id", "type", "msg") else frame["msg"]
        if value is MISSING:
            place.pop(field, None)
        else:
            place[field] = value
        return json.dumps(frame).encode() + b"\n"


def recorded(name: str, kind: str, *, with_key: str = "") -> dict[str, Any]:
    """The first frame of this type in a recording."""
    for frame in capture(f"{name}.jsonl").frames():
        message = json.loads(frame)
        if message["type"] == kind and (not with_key or with_key in message["msg"]):
            return dict(message)
    raise AssertionError((name, kind))


def placed(message: dict[str, Any], *, sid: int, seq: int | None) -> dict[str, Any]:
    body = dict(message["msg"])
    if "market_ticker" in body:
        body["market_ticker"] = "A"
    head = {"type": message["type"], "sid": sid, **({} if seq is None else {"seq": seq})}
    return {**head, "msg": body}


def life(name: str, event_type: str) -> dict[str, Any]:
    for frame in capture(f"{name}.jsonl").frames():
        message = json.loads(frame)
        if message["type"] == "market_lifecycle_v2" and message["msg"]["event_type"] == event_type:
            return placed(message, sid=13, seq=1)
    raise AssertionError((name, event_type))


LEGACY_TRADE = ("yes_price", "no_price", "count")
LEGACY_TICKER = ("price", "yes_bid", "yes_ask", "volume", "open_interest")
LIFE_FIELDS = tuple(
    field.name
    for field in msgspec.structs.fields(wire.LifecycleBody)
    if field.name not in ("market_ticker", "event_type")
)
BOOKS = (
    Base(
        "delta",
        placed(recorded("johnivanov04_prod_b_2026-09-16", "orderbook_delta"), sid=1, seq=3),
        ("sid", "seq", "market_ticker", "side", "price_dollars", "delta_fp"),
        {"ts": ("ts_us",), "ts_ms": ("ts_us",), "market_id": ("id_ix",)},
        ("price", "delta", "client_order_id", "subaccount"),
    ),
    Base(
        "legacy delta",
        placed(recorded("legacy_delta_2025-08-12", "orderbook_delta"), sid=1, seq=3),
        ("sid", "seq", "market_ticker", "side", "price", "delta"),
        {"ts": ("ts_us",), "ts_ms": ("ts_us",), "market_id": ("id_ix",)},
        ("ts_ms",),
    ),
    Base(
        "snapshot",
        placed(
            recorded("johnivanov04_prod_b_2026-09-16", "orderbook_snapshot", with_key="no_dollars_fp"),
            sid=1,
            seq=3,
        ),
        ("sid", "seq", "market_ticker"),
        {"market_id": ("id_ix",)},
        ("yes", "no", "id"),
    ),
)
BESIDE = (
    Base(
        "trade",
        placed(recorded("johnivanov04_prod_b_2026-09-16", "trade"), sid=11, seq=1),
        ("market_ticker", "trade_id", "count_fp"),
        {"seq": ("seq",), "ts_ms": ("ts_us",), "is_block_trade": ("is_block",)},
        LEGACY_TRADE,
    ),
    Base(
        "trade of February",
        placed(recorded("ssmd_ticker_trade_2026-02-12", "trade"), sid=11, seq=1),
        ("market_ticker", "trade_id", "count_fp"),
        {
            "seq": ("seq",),
            "ts": ("ts_us",),
            "ts_ms": ("ts_us",),
            "taker_side": ("taker_side",),
            "is_block_trade": ("is_block",),
        },
        ("is_block_trade",),
    ),
    Base(
        "ticker",
        placed(recorded("delta_hedged_prod_2026-09-25", "ticker"), sid=12, seq=None),
        ("market_ticker",),
        {
            "market_id": ("market_id",),
            "price_dollars": ("price_e4",),
            "yes_bid_dollars": ("yes_bid_e4",),
            "yes_ask_dollars": ("yes_ask_e4",),
            "yes_bid_size_fp": ("yes_bid_qty_e2",),
            "yes_ask_size_fp": ("yes_ask_qty_e2",),
            "last_trade_size_fp": ("last_trade_qty_e2",),
            "volume_fp": ("volume_e2",),
            "open_interest_fp": ("open_interest_e2",),
            "dollar_volume": ("dollar_volume",),
            "dollar_open_interest": ("dollar_open_interest",),
            "time": ("ts_us",),
            "ts_ms": ("ts_us",),
        },
        LEGACY_TICKER,
    ),
    *(
        Base(
            event_type,
            life(name, event_type),
            ("market_ticker", "event_type"),
            {"seq": ("seq",), "additional_metadata": ("event_ticker",)},
            LIFE_FIELDS,
        )
        for name, event_type in (
            ("rust_client_prod_2025-10-02", "created"),
            ("rust_client_prod_2025-10-02", "close_date_updated"),
            ("rust_client_prod_2025-10-02", "deactivated"),
            ("ssmd_lifecycle_2026-07-19", "determined"),
            ("ssmd_lifecycle_2026-07-19", "settled"),
            ("metadata_updated_2026-09-06", "metadata_updated"),
            ("asyncapi_examples_2026-09", "price_level_structure_updated"),
        )
    ),
    Base(
        "combination",
        placed(recorded("asyncapi_examples_2026-09", "multivariate_market_lifecycle"), sid=14, seq=1),
        ("market_ticker",),
        {
            "seq": ("seq",),
            "additional_metadata": ("event_ticker",),
            "event_ticker": ("event_ticker",),
            "event_type": ("event_type",),
        },
        ("event_ticker",),
    ),
    Base(
        "event",
        placed(recorded("asyncapi_examples_2026-09", "event_lifecycle"), sid=13, seq=1),
        ("event_ticker",),
        {"seq": ("seq",)},
        ("strike_date", "strike_period", "additional_metadata"),
    ),
    Base(
        "fee",
        placed(recorded("asyncapi_examples_2026-09", "event_fee_update"), sid=13, seq=1),
        ("event_ticker",),
        {"seq": ("seq",)},
        ("exchange_index",),
    ),
)
ALL = {base.name: base for base in (*BOOKS, *BESIDE)}
# Prices that are no price: without an exact twin beside them the frame cannot be used (``test_essential``).
LEVELS = ("yes_dollars_fp", "no_dollars_fp")


def cases(*, essential: bool) -> list[Any]:
    return [
        pytest.param(base.name, field, id=f"{base.name}-{field}")
        for base in ALL.values()
        for field in dict.fromkeys(base.fields())
        if (field in (*base.essential, *LEVELS)) == essential
    ]


class Told(NamedTuple):
    rows: list[dict[str, Any]]
    rejected: list[str]
    losses: Any
    stale: set[str]
    kept: list[bytes]


def told(base: Base, frame: bytes) -> Told:
    """What a recorder makes of it."""
    if base in BOOKS:
        rig = test_recorder.Rig()
        price = base.frame["msg"].get("price_dollars") or "0.5100"
        resting: dict[str, Any] = {base.frame["msg"].get("side", "yes"): [(price, "99999.00")]}
        rig.feed(snapshot(1, "A", **resting), snapshot(2, "B"))
        first = len(rig.sealed())
        rig.feed(frame)
        rows = [{k: v for k, v in row.items() if k != "market_ix"} for row in rig.sealed()[first:]]
        stale = {ticker for ticker, market in rig.books.by_ticker.items() if market.book.stale}
        rejected, kept = [one.reason for one in rig.rejected], [one.payload for one in rig.rejected]
        return Told(rows, rejected, rig.recorder.counts.losses, stale, kept)
    beside = test_channels.Rig()
    beside.links[0].session.grant("multivariate_market_lifecycle", 14, 1)
    beside.feed(frame)
    tables = [table for table in TABLES if table != "markets"]
    found = [msgspec.structs.asdict(row) for table in tables for row in getattr(beside.rows, table)]
    for row in found:
        row.pop("body", None)  # as it came
    return Told(found, beside.rejected, beside.recorder.counts.losses, set(), [])


@pytest.mark.parametrize("name", ALL)
def test_a_frame_as_it_is_loses_nothing(name: str) -> None:
    base = ALL[name]
    found = told(base, json.dumps(base.frame).encode())
    assert len(found.rows) >= 1
    assert found.rejected == []
    assert not found.losses.fields
    assert not found.stale


@pytest.mark.parametrize(("name", "field"), cases(essential=False))
def test_what_a_message_can_do_without_costs_itself(name: str, field: str) -> None:
    base = ALL[name]
    right = told(base, json.dumps(base.frame).encode()).rows
    kind = msgspec.structs.fields(wire._BODIES[wire._BY_TAG[base.kind]])
    simple = not any(f.name == field and any(t in str(f.type) for t in ("dict", "list")) for f in kind)
    for spoil, value in SPOILS.items():
        if field == "sid" and spoil == "number":
            continue  # a subscription that is none of ours
        found = told(base, base.spoilt(field, value))
        assert found.rejected == [], spoil
        assert not found.stale, spoil
        free = base.shows.get(field, ())
        assert [strip(row, free) for row in found.rows] == [strip(row, free) for row in right], spoil
        if spoil in ("list", "object") and simple and not judged_by_its_twin(base, field):
            lost = found.losses.fields
            assert lost[base.kind, field] == 1, spoil
            assert found.losses.lossy == {channel_of(base.kind): 1}
        if value in NO_VALUES and field not in (
            "ts_ms",
            "ts",
            "taker_side",
            *REQUIRED_OF_A_TICKER,
            "sid",
            "seq",
        ):
            assert not found.losses.fields, (spoil, found.losses.fields)


REQUIRED_OF_A_TICKER = ("yes_bid_dollars", "yes_ask_dollars", "volume_fp", "open_interest_fp")


def judged_by_its_twin(base: Base, field: str) -> bool:
    """Nobody looks at it, since an exact twin is there."""
    twin = base.kind == "trade" and field == "no_price_dollars"
    return twin or field in ("taker_book_side", "Clock", "is_deactivated")


def strip(row: dict[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in (*free, "ingest_ns")}


@pytest.mark.parametrize(("name", "field"), cases(essential=True))
def test_essential(name: str, field: str) -> None:
    base = ALL[name]
    for spoil in ("removed", "null", "empty", "list", "object", "true", "negative"):
        if field in LEVELS and spoil in ("removed", "null"):
            continue  # a side without orders
        if field == "count_fp" and "count" in base.frame["msg"] and SPOILS[spoil] in NO_VALUES:
            continue  # the old form beside it counts
        if (field, spoil) in (("trade_id", "negative"), ("delta_fp", "negative"), ("delta", "negative")):
            continue  # a number is an id too, and a change may be below 0
        payload = base.spoilt(field, SPOILS[spoil])
        found = told(base, payload)
        assert len(found.rejected) == 1, spoil
        assert found.losses.rejected == {channel_of(base.kind): 1}, spoil
        assert not found.losses.lossy
        if base not in BOOKS:
            assert found.rows == []
            assert field in found.rejected[0]
            continue
        assert found.kept == [payload]
        doubtful = {"A", "B"} if field in ("sid", "seq", "market_ticker") else {"A"}
        assert found.stale == doubtful, spoil
        assert [row["type"] for row in found.rows] == ["gap"] * len(doubtful)


def test_numbers_in_every_form_of_json_are_numbers() -> None:
    base = ALL["delta"]
    right = told(base, json.dumps(base.frame).encode()).rows
    body = base.frame["msg"]
    text = json.dumps(base.frame)
    for old, new in (
        ('"sid": 1,', '"sid": 1.0,'),
        ('"seq": 3,', '"seq": 3E0,'),
        ('"seq": 3,', '"seq": 0.3e+1,'),
        (f'"ts_ms": {body["ts_ms"]}', f'"ts_ms": {body["ts_ms"]}.000'),
        (f'"price_dollars": "{body["price_dollars"]}"', f'"price_dollars": {body["price_dollars"]}'),
        (f'"price_dollars": "{body["price_dollars"]}"', f'"price_dollars": {float(body["price_dollars"]):E}'),
        (f'"delta_fp": "{body["delta_fp"]}"', f'"delta_fp": {body["delta_fp"]}'),
    ):
        assert old in text
        found = told(base, text.replace(old, new).encode())
        assert found.rejected == []
        assert found.rows == right, new
        assert not found.losses.fields
    for new in ("3.5", "1e400", "1E-400", "NaN", '"3"'):
        found = told(base, text.replace('"seq": 3,', f'"seq": {new},').encode())
        assert len(found.rejected) == 1
        assert found.stale == {"A", "B"}, new


def test_levels_may_be_numbers_and_have_more_than_two_parts() -> None:
    rig = test_recorder.Rig()
    body = '{"market_ticker":"A","yes_dollars_fp":[[0.08,"3.00",7],["0.0900",1.5E0]],"no_dollars_fp":null}'
    rig.feed(f'{{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{body}}}'.encode())
    assert rig.books.by_ticker["A"].book.ladders() == ([(900, 150), (800, 300)], [])
    for levels in ('[["0.08"]]', '[["0.08",null]]', "[7]", '{"0.08":"1.00"}', '""'):
        rig = test_recorder.Rig()
        body = f'{{"market_ticker":"A","yes_dollars_fp":{levels}}}'
        frame = f'{{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{body}}}'
        rig.feed(frame.encode())
        assert rig.recorder.counts.rejected == 1, "an empty book would be wrong"


@pytest.mark.parametrize(
    ("text", "ts_ms", "us"),
    [
        ("2026-09-25T19:13:44.342537Z", 1_790_363_624_342, 1_790_363_624_342_537),
        ("2026-09-25T19:13:44.342537Z", None, 1_790_363_624_342_537),
        ("2026-09-25T19:13:44.342537Z", 1_790_363_624_343, 1_790_363_624_343_000),
        ("yesterday", 1_790_363_624_342, 1_790_363_624_342_000),
        ("", 1_790_363_624_342, 1_790_363_624_342_000),
        (None, 1_790_363_624_342, 1_790_363_624_342_000),
        (None, None, None),
        ("", None, None),
    ],
)
def test_microseconds_are_kept_where_both_times_agree(
    text: str | None, ts_ms: int | None, us: int | None
) -> None:
    assert exchange_us(text, ts_ms) == us


def test_replies_lose_fields_and_not_themselves() -> None:
    for name in ("subscribed", "ok", "unsubscribed", "error", "scoped error", "list"):
        message = json.loads(EXAMPLES[name])
        for field in [*message, *(message.get("msg", ()) if isinstance(message.get("msg"), dict) else ())]:
            essential = {"subscribed": ("id", "sid", "channel", "msg"), "unsubscribed": ("sid",)}.get(
                name, ()
            )
            if field in ("type", *essential):
                continue
            for value in ({"a": 1}, [7], True, "x" if field in ("id", "sid", "seq", "code") else 7):
                spoilt = json.loads(EXAMPLES[name])
                place = spoilt if field in spoilt else spoilt["msg"]
                place[field] = value
                decoded = wire.decode(json.dumps(spoilt).encode())
                assert wire.type_of(decoded) == message["type"], (name, field, value)
