"""What a kept frame comes to now: a row, or a sentence that says why none.

The row is the one that it would have been: with its connection, subscription, number and receive time. A
frame of an order book has no place any more: a book is made of all frames in a row, and the rows say
already that this one was unknown from here until its next snapshot. Not here: whether the row is stored
(``stored``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from kalshi_fast import wire
from kalshi_fast.channels.link import body_text
from kalshi_fast.channels.reference import LISTINGS, VALUES
from kalshi_fast.channels.rows import LifecycleRow, TickerRow, TradeRow, ticker_row, trade_row
from kalshi_fast.channels.streams import check_body, lifecycle_row
from kalshi_fast.errors import FieldError

if TYPE_CHECKING:
    from kalshi_fast.losses import Losses
    from kalshi_fast.rereading.kept import Kept

Row: TypeAlias = TradeRow | TickerRow | LifecycleRow
BOOK: Final = (
    "of an order book: it has no place after the fact. The rows say that the book was unknown from this frame"
    " until its next snapshot, so they are right without it"
)
REPLY: Final = "a reply to a command: nothing to store"
OTHER: Final = "of a type that has no table"
PRICE: Final = "a reference price: those are not read again"
UNWANTED: Final = "of a market that MARKET_TICKERS does not name"


def taken(frame: Kept, wanted: frozenset[str], losses: Losses) -> Row | str:
    """``wanted``: the markets that are recorded, empty: any. A str: why there is no row."""
    try:
        message = wire.decode(frame.payload, losses)
        if isinstance(message, wire.OrderbookDelta | wire.OrderbookSnapshot):
            return BOOK
        if isinstance(message, wire.Subscribed | wire.Ok | wire.Unsubscribed | wire.Error):
            return REPLY
        if isinstance(message, LISTINGS):
            return REPLY
        if isinstance(message, VALUES):
            return PRICE
        if isinstance(message, wire.Trade | wire.TickerUpdate):
            if wanted and message.msg.market_ticker not in wanted:
                return UNWANTED
            if isinstance(message, wire.Trade):
                return trade_row(message, frame.conn_id, frame.ingest_ns, losses)
            return ticker_row(message.msg, frame.conn_id, message.sid, frame.ingest_ns, losses)
        if isinstance(
            message,
            wire.MarketLifecycle | wire.EventLifecycle | wire.EventFeeUpdate | wire.MultivariateLifecycle,
        ):
            body = body_text(frame.payload)
            check_body(body)
            return lifecycle_row(message, body, frame.conn_id, frame.ingest_ns)
    except FieldError as error:
        return f"still cannot be used: {error.field}: expected {error.expected}"
    return OTHER
