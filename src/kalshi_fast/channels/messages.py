"""Messages of the public channels beside the order book, as msgspec structs.

Source: Kalshi's AsyncAPI document 2.0.0 (autumn 2026) and recordings. ``trade`` and the life-cycle channels
have sequences, ``ticker`` has none. Values stay as the exchange wrote them: ``rows`` makes integers of
them. A field of a body without a default is one that its row means nothing without; what becomes of the
others is in ``tolerant``. A ``sid`` or ``seq`` of 0: it could not be read. Not here: the order book,
replies and commands (``wire``), REST (``rest_bodies``).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from kalshi_fast.scalars import Int64, Name, Seq, Sid, Side, UnixMs, UnixS


class TradeBody(Struct, gc=False, omit_defaults=True):
    """``taker_side`` is deprecated: ``taker_outcome_side`` says the same, and old frames lack it."""

    trade_id: Name
    market_ticker: Name
    taker_side: Side | None = None
    yes_price_dollars: str | None = None
    no_price_dollars: str | None = None
    count_fp: str | None = None
    yes_price: int | None = None
    no_price: int | None = None
    count: int | None = None
    taker_outcome_side: Side | None = None
    taker_book_side: Literal["bid", "ask"] | None = None
    is_block_trade: bool = False
    ts: UnixS | None = None
    ts_ms: UnixMs | None = None


class Trade(Struct, tag="trade", gc=False, omit_defaults=True):
    sid: Sid
    seq: Seq
    msg: TradeBody


class TickerBody(Struct, gc=False, omit_defaults=True):
    market_ticker: Name
    market_id: str = ""
    price_dollars: str | None = None
    yes_bid_dollars: str | None = None
    yes_ask_dollars: str | None = None
    volume_fp: str | None = None
    open_interest_fp: str | None = None
    dollar_volume: Int64 | None = None
    dollar_open_interest: Int64 | None = None
    yes_bid_size_fp: str | None = None
    yes_ask_size_fp: str | None = None
    last_trade_size_fp: str | None = None
    price: int | None = None
    yes_bid: int | None = None
    yes_ask: int | None = None
    volume: int | None = None
    open_interest: int | None = None
    ts: UnixS | None = None
    ts_ms: UnixMs | None = None
    time: str | None = None


class TickerUpdate(Struct, tag="ticker", gc=False, omit_defaults=True):
    """The ``ticker`` channel has no sequence."""

    sid: Sid
    msg: TickerBody


class PriceRange(Struct, gc=False):
    """One stretch of a market's price grid, in dollar strings."""

    start: str
    end: str
    step: str


class LifecycleBody(Struct, omit_defaults=True):
    """One ``market_lifecycle_v2`` event; which optional fields are set depends on ``event_type``.

    ``additional_metadata`` comes with ``created``; ``metadata_updated`` has what has changed beside the
    ticker.
    """

    market_ticker: Name
    event_type: Name
    exchange_index: int | None = None
    open_ts: UnixS | None = None
    close_ts: UnixS | None = None
    price_level_structure: str | None = None
    price_ranges: list[PriceRange] | None = None
    additional_metadata: dict[str, Any] | None = None
    result: str | None = None
    settlement_value: Decimal | None = None
    determination_ts: UnixS | None = None
    settled_ts: UnixS | None = None
    title: str | None = None
    yes_sub_title: str | None = None
    no_sub_title: str | None = None
    strike_type: str | None = None
    floor_strike: Decimal | None = None
    cap_strike: Decimal | None = None
    custom_strike: dict[str, Any] | None = None


class EventBody(Struct, omit_defaults=True):
    """An event that has come to be."""

    event_ticker: Name
    exchange_index: int | None = None
    series_ticker: str | None = None
    title: str | None = None
    subtitle: str | None = None
    collateral_return_type: str | None = None
    strike_date: UnixS | str | None = None
    strike_period: str | None = None
    additional_metadata: dict[str, Any] | None = None


class EventFeeBody(Struct, omit_defaults=True):
    """The fees of an event, where they are others than those of its series; None: they are the same again."""

    event_ticker: Name
    fee_type_override: str | UnsetType | None = UNSET
    fee_multiplier_override: Decimal | UnsetType | None = UNSET
    exchange_index: int | None = None


class MultivariateBody(LifecycleBody, omit_defaults=True):
    """As of any other market; the document does not say that it is always complete."""

    event_type: str = ""
    event_ticker: str | None = None


class MarketLifecycle(Struct, tag="market_lifecycle_v2", omit_defaults=True):
    sid: Sid
    msg: LifecycleBody
    seq: Seq | None = None


class EventLifecycle(Struct, tag="event_lifecycle", omit_defaults=True):
    sid: Sid
    msg: EventBody
    seq: Seq | None = None


class EventFeeUpdate(Struct, tag="event_fee_update", omit_defaults=True):
    sid: Sid
    msg: EventFeeBody
    seq: Seq | None = None


class MultivariateLifecycle(Struct, tag="multivariate_market_lifecycle", omit_defaults=True):
    sid: Sid
    msg: MultivariateBody
    seq: Seq | None = None
