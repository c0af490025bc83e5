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

from kalshi_fast._decode import cents_e4, contracts_e2, price_e4, qty_e2, rfc3339_us
from kalshi_fast.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kalshi_fast.channels.messages import TickerBody, Trade, TradeBody

NIL_ID: Final = str(uuid.UUID(int=0))


class TradeRow(msgspec.Struct, frozen=True, array_like=True):
    """A trade; ``yes_price_e4`` is what the yes side paid."""

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


Row: TypeAlias = TradeRow | TickerRow | LifecycleRow | MarketRow


class ChannelRows(msgspec.Struct, array_like=True):
    """The rows of one batch; a field has the name of its table."""

    trades: list[TradeRow] = []
    tickers: list[TickerRow] = []
    market_lifecycle: list[LifecycleRow] = []
    markets: list[MarketRow] = []

    def __len__(self) -> int:
        return len(self.trades) + len(self.tickers) + len(self.market_lifecycle) + len(self.markets)


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
}
TABLES: Final = tuple(SCHEMAS)


def arrow(table: str, rows: Sequence[Row]) -> pa.RecordBatch:
    """The rows of one table as columns."""
    schema = SCHEMAS[table]
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# --- from the exchange's words ----------------------------------------------------------------------------


def trade_row(message: Trade, conn_id: int, ingest_ns: int) -> TradeRow:
    """Raises FrameError naming the field that cannot be."""
    body = message.msg
    if body.ts_ms is not None:
        ts_us = body.ts_ms * 1000
    else:
        ts_us = body.ts * 1_000_000 if body.ts is not None else ingest_ns // 1000
    qty = _given("count_fp", _qty(body.count_fp, body.count, "count_fp"))
    if qty <= 0:
        raise FrameError("count_fp", body.count_fp or body.count, "more than 0 contracts")
    return TradeRow(
        conn_id,
        message.sid,
        message.seq,
        trade_id(body.trade_id),
        body.market_ticker,
        body.taker_side,
        body.is_block_trade,
        _trade_price(body),
        qty,
        ts_us,
        ingest_ns,
    )


def trade_id(text: str) -> str:
    """In the one way of writing it that all who compare ids have."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise FrameError("trade_id", text, "a UUID") from None


def _trade_price(body: TradeBody) -> int:
    """Of the yes side; both sides of a trade come to one dollar."""
    yes = _price(body.yes_price_dollars, body.yes_price, "yes_price_dollars")
    if yes is None:
        no = _price(body.no_price_dollars, body.no_price, "no_price_dollars")
        return 10_000 - _given("yes_price_dollars", no)
    return yes


def ticker_row(body: TickerBody, conn_id: int, sid: int, ingest_ns: int) -> TickerRow:
    """Raises FrameError naming the field that cannot be."""
    if body.ts_ms is not None:
        ts_us = body.ts_ms * 1000
    elif body.time is not None:
        ts_us = rfc3339_us(body.time, "time")
    else:
        ts_us = body.ts * 1_000_000 if body.ts is not None else ingest_ns // 1000
    return TickerRow(
        conn_id,
        sid,
        _market_id(body.market_id),
        body.market_ticker,
        _price(body.price_dollars, body.price, "price_dollars"),
        _price(body.yes_bid_dollars, body.yes_bid, "yes_bid_dollars"),
        _price(body.yes_ask_dollars, body.yes_ask, "yes_ask_dollars"),
        _qty(body.yes_bid_size_fp, None, "yes_bid_size_fp"),
        _qty(body.yes_ask_size_fp, None, "yes_ask_size_fp"),
        _qty(body.last_trade_size_fp, None, "last_trade_size_fp"),
        _qty(body.volume_fp, body.volume, "volume_fp"),
        _qty(body.open_interest_fp, body.open_interest, "open_interest_fp"),
        body.dollar_volume,
        body.dollar_open_interest,
        ts_us,
        ingest_ns,
    )


def _market_id(text: str) -> str:
    if not text:
        return NIL_ID
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise FrameError("market_id", text, "a UUID") from None


def _price(dollars: str | None, cents: int | None, field: str) -> int | None:
    if dollars is not None:
        return price_e4(dollars, field)
    return None if cents is None else cents_e4(cents, field)


def _qty(fixed: str | None, contracts: int | None, field: str) -> int | None:
    if fixed is not None:
        return qty_e2(fixed, field)
    return None if contracts is None else contracts_e2(contracts, field)


def _given(field: str, value: int | None) -> int:
    if value is None:
        raise FrameError(field, None, "a value, in this field or its legacy twin")
    return value
