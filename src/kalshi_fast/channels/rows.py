"""Rows of the other channels: integers and exact decimals made of the exchange's words, and their Arrow
columns.

One struct a table of sql/, its fields in the order of the columns; they are also the typed events of a replay
and of a strategy. The rows of a batch travel with it as
msgpack (``batch.Extra``); ``arrow`` makes columns of them for a store. ``sid`` and ``seq`` 0: it came by
REST. Not here: who writes them (``streams``).
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import msgspec
import pyarrow as pa

from kalshi_fast._decode import cents_e4, contracts_e2, price_e4, qty_e2
from kalshi_fast.channels.reference_rows import REFERENCE_SCHEMA, ReferenceRow
from kalshi_fast.errors import FrameError
from kalshi_fast.losses import USUAL
from kalshi_fast.times import exchange_us

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kalshi_fast.channels.messages import TickerBody, Trade, TradeBody
    from kalshi_fast.losses import Losses
    from kalshi_fast.rest_bodies import RestTrade

NIL_ID: Final = str(uuid.UUID(int=0))
_OTHER_IDS: Final = uuid.UUID("b7a1f6c2-6f0d-5e0c-9b0e-2d9f8f3c4a11")  # namespace of ids made of other texts


class TradeRow(msgspec.Struct, frozen=True, array_like=True):
    """A trade; ``yes_price_e4`` is what the yes side paid, ``taker_side`` is "" where nobody has said it."""

    table: ClassVar[str] = "trades"
    conn_id: int
    sid: int
    seq: int
    trade_id: str
    market_ticker: str
    taker_side: str
    is_block: bool
    yes_price_e4: int
    qty_e2: int
    ts_us: int
    ingest_ns: int

    @property
    def ticker(self) -> str:
        """The market, by the name that book events have for it."""
        return self.market_ticker


class TickerRow(msgspec.Struct, frozen=True, array_like=True):
    """A value that the exchange left out is None."""

    table: ClassVar[str] = "tickers"
    conn_id: int
    sid: int
    market_id: str
    market_ticker: str
    price_e4: int | None
    yes_bid_e4: int | None
    yes_ask_e4: int | None
    yes_bid_qty_e2: int | None
    yes_ask_qty_e2: int | None
    last_trade_qty_e2: int | None
    volume_e2: int | None
    open_interest_e2: int | None
    dollar_volume: int | None
    dollar_open_interest: int | None
    ts_us: int
    ingest_ns: int

    @property
    def ticker(self) -> str:
        """The market, by the name that book events have for it."""
        return self.market_ticker


class LifecycleRow(msgspec.Struct, frozen=True, array_like=True):
    """An announcement as it came; ``body`` is the JSON of its ``msg``. One of a whole event has no market."""

    table: ClassVar[str] = "market_lifecycle"
    conn_id: int
    sid: int
    seq: int
    market_ticker: str
    event_ticker: str
    event_type: str
    body: str
    ingest_ns: int

    @property
    def ticker(self) -> str:
        """The market, by the name that book events have for it."""
        return self.market_ticker


class MarketRow(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a market. Of two rows the one with the larger ``version`` is the truth.

    Fields behind ``version`` came later: rows of a journal are read by their place.
    """

    market_ticker: str
    market_id: str = NIL_ID
    event_ticker: str = ""
    series_ticker: str = ""
    title: str = ""
    subtitle: str = ""
    status: str = ""
    strike_type: str = ""
    floor_strike: Decimal | None = None
    cap_strike: Decimal | None = None
    price_level_structure: str = ""
    price_ranges: str = ""
    open_ts_ms: int | None = None
    close_ts_ms: int | None = None
    expiration_ts_ms: int | None = None
    determination_ts_ms: int | None = None
    settled_ts_ms: int | None = None
    result: str = ""
    settlement_value_e4: int | None = None
    version: int = 0
    yes_sub_title: str = ""
    no_sub_title: str = ""
    custom_strike: str = ""
    expected_expiration_ts_ms: int | None = None
    expiration_value: str = ""
    rules_primary: str = ""
    rules_secondary: str = ""
    mve_collection_ticker: str = ""
    mve_selected_legs: str = ""
    is_provisional: bool = False
    exchange_index: int | None = None


Row: TypeAlias = TradeRow | TickerRow | LifecycleRow | MarketRow | ReferenceRow


class ChannelRows(msgspec.Struct, array_like=True):
    """The rows of one batch; a field has the name of its table."""

    trades: list[TradeRow] = []
    tickers: list[TickerRow] = []
    market_lifecycle: list[LifecycleRow] = []
    markets: list[MarketRow] = []
    reference_prices: list[ReferenceRow] = []

    def __len__(self) -> int:
        return sum(map(len, msgspec.structs.astuple(self)))


# --- columns ----------------------------------------------------------------------------------------------

_TEXT = pa.dictionary(pa.int32(), pa.string())
_SECOND_E3 = pa.timestamp("ms", "UTC")
_TS = [("ts", pa.timestamp("us", "UTC")), ("ingest_ts", pa.timestamp("ns", "UTC"))]
STRIKE_DIGITS: Final = 10
_STRIKE = pa.decimal128(38, STRIKE_DIGITS)

SCHEMAS: Final = {
    "trades": pa.schema(
        [
            ("conn_id", pa.uint64()),
            ("sid", pa.uint32()),
            ("seq", pa.uint64()),
            ("trade_id", pa.string()),
            ("market_ticker", _TEXT),
            ("taker_side", _TEXT),
            ("is_block", pa.bool_()),
            ("yes_price_e4", pa.uint16()),
            ("qty_e2", pa.int64()),
            *_TS,
        ]
    ),
    "tickers": pa.schema(
        [
            ("conn_id", pa.uint64()),
            ("sid", pa.uint32()),
            ("market_id", _TEXT),
            ("market_ticker", _TEXT),
            ("price_e4", pa.uint16()),
            ("yes_bid_e4", pa.uint16()),
            ("yes_ask_e4", pa.uint16()),
            ("yes_bid_qty_e2", pa.int64()),
            ("yes_ask_qty_e2", pa.int64()),
            ("last_trade_qty_e2", pa.int64()),
            ("volume_e2", pa.int64()),
            ("open_interest_e2", pa.int64()),
            ("dollar_volume", pa.int64()),
            ("dollar_open_interest", pa.int64()),
            *_TS,
        ]
    ),
    "market_lifecycle": pa.schema(
        [
            ("conn_id", pa.uint64()),
            ("sid", pa.uint32()),
            ("seq", pa.uint64()),
            ("market_ticker", _TEXT),
            ("event_ticker", _TEXT),
            ("event_type", _TEXT),
            ("body", pa.string()),
            ("ingest_ts", pa.timestamp("ns", "UTC")),
        ]
    ),
    "markets": pa.schema(
        [
            ("market_ticker", pa.string()),
            ("market_id", pa.string()),
            ("event_ticker", pa.string()),
            ("series_ticker", pa.string()),
            ("title", pa.string()),
            ("subtitle", pa.string()),
            ("status", pa.string()),
            ("strike_type", pa.string()),
            ("floor_strike", _STRIKE),
            ("cap_strike", _STRIKE),
            ("price_level_structure", pa.string()),
            ("price_ranges", pa.string()),
            ("open_ts", _SECOND_E3),
            ("close_ts", _SECOND_E3),
            ("expiration_ts", _SECOND_E3),
            ("determination_ts", _SECOND_E3),
            ("settled_ts", _SECOND_E3),
            ("result", pa.string()),
            ("settlement_value_e4", pa.uint16()),
            ("version", pa.uint64()),
            ("yes_sub_title", pa.string()),
            ("no_sub_title", pa.string()),
            ("custom_strike", pa.string()),
            ("expected_expiration_ts", _SECOND_E3),
            ("expiration_value", pa.string()),
            ("rules_primary", pa.string()),
            ("rules_secondary", pa.string()),
            ("mve_collection_ticker", pa.string()),
            ("mve_selected_legs", pa.string()),
            ("is_provisional", pa.bool_()),
            ("exchange_index", pa.int32()),
        ]
    ),
    "reference_prices": REFERENCE_SCHEMA,
}
TABLES: Final = tuple(SCHEMAS)


def arrow(table: str, rows: Sequence[Row]) -> pa.RecordBatch:
    """The rows of one table as columns."""
    schema = SCHEMAS[table]
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# --- from the exchange's words ----------------------------------------------------------------------------


def trade_row(message: Trade, conn_id: int, ingest_ns: int, losses: Losses) -> TradeRow:
    """Raises FrameError naming the field that cannot be and that a trade is nothing without."""
    body = message.msg
    ts_us = body.ts_ms * 1000 if body.ts_ms is not None else None
    if ts_us is None and body.ts is not None:
        ts_us = body.ts * 1_000_000
    if ts_us is None:
        losses.field("trade", "ts_ms")
        ts_us = ingest_ns // 1000
    side = taker_of(body)
    if not side:
        losses.field("trade", "taker_outcome_side")
    return TradeRow(
        conn_id,
        message.sid,
        message.seq,
        trade_id(body.trade_id, losses),
        body.market_ticker,
        side,
        body.is_block_trade,
        trade_price(body, losses),
        trade_qty(body),
        ts_us,
        ingest_ns,
    )


def trade_id(text: str, losses: Losses) -> str:
    """In the one way of writing it that all who compare ids have. Of a text that is no UUID one is made,
    always the same, so that the trade is still known by it."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        losses.field("trade", "trade_id")
        return str(uuid.uuid5(_OTHER_IDS, text.encode(errors="replace").decode()))


def taker_of(body: TradeBody | RestTrade) -> str:
    """The side that the taker bought; "" when nothing says it. ``taker_side`` is the older name."""
    return body.taker_outcome_side or body.taker_side or _BOUGHT.get(body.taker_book_side or "", "")


def trade_qty(body: TradeBody | RestTrade) -> int:
    """Raises FrameError when there is none."""
    qty = _given("count_fp", qty_of(body.count_fp, body.count, "count_fp"))
    if qty <= 0:
        raise FrameError("count_fp", body.count_fp or body.count, "more than 0 contracts")
    return qty


def trade_price(body: TradeBody | RestTrade, losses: Losses) -> int:
    """Of the yes side; both sides of a trade come to one dollar, so that either will do. Raises FrameError
    when there is none."""
    try:
        yes = price_of(body.yes_price_dollars, None, "yes_price_dollars")
        if yes is None and not body.no_price_dollars:
            yes = price_of(None, body.yes_price, "yes_price")
    except FrameError:
        if not body.no_price_dollars:
            raise
        losses.field("trade", "yes_price_dollars")
        yes = None
    if yes is None:
        no = price_of(body.no_price_dollars, body.no_price, "no_price_dollars")
        return 10_000 - _given("yes_price_dollars", no)
    return yes


def ticker_row(body: TickerBody, conn_id: int, sid: int, ingest_ns: int, losses: Losses) -> TickerRow:
    """What cannot be used of it is None in the row."""
    try:
        ts_us = exchange_us(body.time, body.ts_ms, "time")
    except FrameError:
        losses.field("ticker", "time")
        ts_us = None
    if ts_us is None and body.ts is not None:
        ts_us = body.ts * 1_000_000
    if ts_us is None:
        losses.field("ticker", "ts_ms")
        ts_us = ingest_ns // 1000

    def price(field: str, legacy: int | None) -> int | None:
        return _or_lost(price_of, getattr(body, field), legacy, field, losses)

    def qty(field: str, legacy: int | None = None) -> int | None:
        return _or_lost(qty_of, getattr(body, field), legacy, field, losses)

    return TickerRow(
        conn_id,
        sid,
        _market_id(body.market_id, losses),
        body.market_ticker,
        price("price_dollars", body.price),
        price("yes_bid_dollars", body.yes_bid),
        price("yes_ask_dollars", body.yes_ask),
        qty("yes_bid_size_fp"),
        qty("yes_ask_size_fp"),
        qty("last_trade_size_fp"),
        qty("volume_fp", body.volume),
        qty("open_interest_fp", body.open_interest),
        body.dollar_volume,
        body.dollar_open_interest,
        ts_us,
        ingest_ns,
    )


def _market_id(text: str, losses: Losses) -> str:
    if not text:
        return NIL_ID
    try:
        return str(uuid.UUID(text))
    except ValueError:
        losses.field("ticker", "market_id")
        return NIL_ID


def _or_lost(
    read: Callable[[str | None, int | None, str], int | None],
    fixed: str | None,
    legacy: int | None,
    field: str,
    losses: Losses,
) -> int | None:
    try:
        value = read(fixed, legacy, field)
    except FrameError:
        losses.field("ticker", field)
        return None
    if value is None and field in USUAL["ticker"]:
        losses.field("ticker", field)
    return value


_BOUGHT: Final = {"bid": "yes", "ask": "no"}  # who bids for yes buys it


def price_of(dollars: str | None, cents: int | None, field: str) -> int | None:
    """``""`` and None are no value: then the legacy field counts. Raises FrameError for one that is none."""
    if dollars:
        return price_e4(dollars, field)
    # In a message of the old form that has no price yet both stand: "" and 0 cents.
    return None if cents is None or dollars == "" else cents_e4(cents, field)


def qty_of(fixed: str | None, contracts: int | None, field: str) -> int | None:
    """As ``price_of``."""
    if fixed:
        return qty_e2(fixed, field)
    return None if contracts is None else contracts_e2(contracts, field)


def _given(field: str, value: int | None) -> int:
    if value is None:
        raise FrameError(field, None, "a value, in this field or its legacy twin")
    return value
