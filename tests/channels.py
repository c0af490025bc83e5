"""Links of the channels beside the order book, granted, and frames for them."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from frames import frame
from kalshi_fast import wire
from kalshi_fast.channels.link import ChannelLink
from kalshi_fast.channels.session import LIFECYCLE, TICKER, TRADE, ChannelSession
from kalshi_fast.config import CF, CF_5HZ, PYTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kalshi_fast.channels.streams import Streams

SIDS = {TRADE: 11, TICKER: 12, LIFECYCLE: 13}
REFERENCE_SIDS = {CF: 14, CF_5HZ: 15, PYTH: 16}


def commands(session: ChannelSession) -> list[wire.Command]:
    """What waits to be sent, taken out."""
    found = [wire.decode_command(text) for text in session.outbox]
    session.outbox.clear()
    return found


def link(
    streams: Streams,
    clock: Callable[[], int],
    tickers: Iterable[str] = ("A", "B"),
    reference: bool = False,
    **options: Any,  # noqa: ANN401
) -> ChannelLink:
    """Not connected yet: see ``grant``. ``reference``: with every reference price too."""
    names = {**SIDS, **REFERENCE_SIDS} if reference else SIDS
    wanted = dict.fromkeys(REFERENCE_SIDS, ("all",)) if reference else {}
    session = ChannelSession(names, tickers, clock=clock, rng=random.Random(1), reference=wanted)
    return ChannelLink(streams, session, **options)


def grant(link: ChannelLink, conn_id: int, now_ns: int) -> None:
    """A new connection, on which every channel is carried."""
    link.on_connected(conn_id, now_ns)
    for command in commands(link.session):
        assert command.params is not None
        (channel,) = command.params.channels or [""]
        subscribed = wire.Subscribed(command.id, wire.ChannelSid(channel, (SIDS | REFERENCE_SIDS)[channel]))
        link.on_frame(wire.encode(subscribed), now_ns)


def trade_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def trade(seq: int, number: int, ticker: str = "A", **more: Any) -> bytes:  # noqa: ANN401
    body = {
        "trade_id": trade_id(number),
        "market_ticker": ticker,
        "yes_price_dollars": "0.3600",
        "count_fp": "1.50",
        "taker_side": "no",
        "ts_ms": 1_669_149_841_000 + number,
    }
    return frame("trade", SIDS[TRADE], seq, **{**body, **more})


def ticker(market: str = "A", **more: Any) -> bytes:  # noqa: ANN401
    return frame("ticker", SIDS[TICKER], None, market_ticker=market, ts_ms=1_669_149_841_000, **more)


def event(seq: int, market: str, event_type: str, **more: Any) -> bytes:  # noqa: ANN401
    return frame(LIFECYCLE, SIDS[LIFECYCLE], seq, market_ticker=market, event_type=event_type, **more)


def cf_value(seq: int, number: int, index: str = "BRTI", **more: Any) -> bytes:  # noqa: ANN401
    """Of the channel once a second, in the form of those that production sent."""
    at_ms = 1_790_363_593_000 + 1000 * number
    data = {"type": "value", "time": at_ms, "id": index, "value": f"84018.{number:02d}"}
    body = {
        "index_id": index,
        "received_at": at_ms + 53,
        "data": msgspec.json.encode(data).decode(),
        "avg_60s_data": {
            "value": f"84018.{number:02d}000000",
            "window_size": number,
            "window_start_ts_ms": at_ms - 60_000,
            "window_end_ts_exclusive": at_ms,
        },
    }
    return frame(CF, REFERENCE_SIDS[CF], seq, **{**body, **more})


def as_dicts(rows: Iterable[msgspec.Struct]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(row) for row in rows]
