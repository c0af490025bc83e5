"""The exchange's REST interface, as far as a recorder asks: signed requests, pages, filters, refusals.

Served on the port of the WebSocket. Source: Kalshi's API documentation (lists newest first, at most 1000 a
page, an empty cursor on the last one). It can be made to fail: ``conditions.rest_faults`` says how the next
requests are answered. Not here: what is traded (``tape``), what lives (``life``).
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left, bisect_right
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from kalshi_fast.simulator.events import title
from kalshi_fast.simulator.handshake import refusal
from kalshi_fast.simulator.life import as_rest
from kalshi_fast.simulator.tape import contracts, dollars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.frames import TrueBook
    from kalshi_fast.simulator.handshake import PublicKey
    from kalshi_fast.simulator.life import Market
    from kalshi_fast.simulator.tape import Traded

ROOT: Final = "/trade-api/v2"
MOST: Final = 1000
# What a filter by status lets through, in the words of a market's own status.
STATUSES: Final = {
    "unopened": ("initialized",),
    "open": ("active",),
    "paused": ("inactive",),
    "closed": ("inactive", "closed", "determined"),
    "settled": ("finalized",),
}
T = TypeVar("T")


class _WrongRequestError(Exception):
    """A parameter that cannot be."""


class Answer(NamedTuple):
    """``cut``: the connection ends in the middle of it."""

    status: int
    body: bytes
    retry_after_s: int | None = None
    cut: bool = False


def answer(
    exchange: Exchange, target: str, headers: Mapping[str, str], keys: Mapping[str, PublicKey]
) -> Answer:
    """Status and JSON of the answer to a GET."""
    parts = urlsplit(target)
    if exchange.conditions.rest_faults:
        kind, value = exchange.conditions.rest_faults.popleft()
        if kind == "rest_busy":
            return _error(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests", parts.path)._replace(
                retry_after_s=value
            )
        if kind == "rest_error":
            return _error(value, "internal_server_error", parts.path)
        return _error(HTTPStatus.OK, "cut", parts.path)._replace(cut=True)
    if exchange.conditions.refusal is not None:
        status, code, message = exchange.conditions.refusal
        return _error(status, code, message)
    refused = refusal(headers, keys, time.time_ns() // 1_000_000, parts.path)
    if refused is not None:
        return _error(HTTPStatus.UNAUTHORIZED, *refused)
    query = dict(parse_qsl(parts.query))
    exchange.stats.rest_requests += 1
    try:
        if parts.path == f"{ROOT}/markets/trades":
            return _json(_trades(exchange, query))
        found = _catalogue(exchange, parts.path.removeprefix(ROOT), query)
        if found is not None:
            return _json(found)
    except _WrongRequestError as error:
        return _error(HTTPStatus.BAD_REQUEST, "bad_request", str(error))
    return _error(HTTPStatus.NOT_FOUND, "not_found", parts.path)


def _trades(exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
    tape = exchange.tape
    first_ms = _number(query, "min_ts", 0) * 1000
    last_ms = _number(query, "max_ts", 2**40) * 1000
    low = bisect_left(tape.trades, first_ms, key=lambda trade: trade.ts_ms)
    at = bisect_right(tape.trades, last_ms, key=lambda trade: trade.ts_ms)
    if "cursor" in query:
        at = min(max(_number(query, "cursor", 0) - tape.first, 0), len(tape.trades))
    limit, ticker = _limit(query), query.get("ticker")
    found: list[Traded] = []
    while at > low and len(found) < limit:
        at -= 1
        if ticker is None or tape.trades[at].ticker == ticker:
            found.append(tape.trades[at])
    return {"trades": [_trade(trade) for trade in found], "cursor": str(at + tape.first) if at > low else ""}


def _trade(trade: Traded) -> dict[str, Any]:
    return {
        "trade_id": trade.trade_id,
        "ticker": trade.ticker,
        "count": trade.qty_e2 // 100,
        "count_fp": contracts(trade.qty_e2),
        "created_time": _moment(trade.ts_ms),
        "yes_price_dollars": dollars(trade.yes_price_e4),
        "no_price_dollars": dollars(10_000 - trade.yes_price_e4),
        "taker_side": trade.taker_side,
    }


def _catalogue(exchange: Exchange, path: str, query: Mapping[str, str]) -> dict[str, Any] | None:
    """Markets, events, series: all of them, or one by its name. None: there is none of that name."""
    if path == "/exchange/status":
        return {"exchange_active": True, "trading_active": not exchange.finished.is_set()}
    markets = exchange.life.markets
    if path == "/markets":
        return _markets(exchange, query)
    kind, _, name = path.removeprefix("/").partition("/")
    if kind == "markets" and name in markets:
        return {"market": _market(exchange, markets[name])}
    ticker = name.removesuffix("/orderbook")
    if kind == "markets" and ticker != name and ticker in markets:
        return _orderbook(exchange.source.books.get(ticker))
    if kind == "events":
        events = {
            market.event_ticker: market
            for market in markets.values()
            if query.get("series_ticker") in (None, market.series_ticker)
        }
        if not name:
            page, cursor = _page(list(events), query, most=200)
            return {"events": [_event(events[ticker]) for ticker in page], "cursor": cursor}
        return {"event": _event(events[name])} if name in events else None
    if kind == "series":
        series = {market.series_ticker: None for market in markets.values()}
        if not name:
            return {"series": [_series(ticker) for ticker in series]}
        return {"series": _series(name)} if name in series else None
    return None


def _orderbook(book: TrueBook | None) -> dict[str, Any] | None:
    """Both sides as bids on their own scales, ascending; a market without a book reads as an empty one."""
    sides = ({}, {}) if book is None else book.sides
    yes, no = ([[dollars(price), contracts(size)] for price, size in sorted(side.items())] for side in sides)
    return {"orderbook_fp": {"no_dollars": no, "yes_dollars": yes}}


def _event(market: Market) -> dict[str, Any]:
    return {
        "event_ticker": market.event_ticker,
        "series_ticker": market.series_ticker,
        "title": title(market.event_ticker),
        "mutually_exclusive": False,
    }


def _series(ticker: str) -> dict[str, Any]:
    return {"ticker": ticker, "title": f"Simulations {ticker}", "category": "Science", "frequency": "custom"}


def _markets(exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
    named = {ticker for ticker in query.get("tickers", "").split(",") if ticker}
    status = query.get("status", "")
    if status and status not in STATUSES:
        raise _WrongRequestError(f"status: expected one of {', '.join(STATUSES)}, got {status[:40]!r}")
    wanted = STATUSES.get(status)
    low, high = _number(query, "min_close_ts", 0), _number(query, "max_close_ts", 2**40)

    def fits(market: Market) -> bool:
        return (
            (not named or market.ticker in named)
            and (wanted is None or market.status in wanted)
            and query.get("series_ticker") in (None, market.series_ticker)
            and query.get("event_ticker") in (None, market.event_ticker)
            and low <= market.close_ts <= high
        )

    page, cursor = _page(list(exchange.life.markets.values()), query, fits)
    return {"markets": [_market(exchange, market) for market in page], "cursor": cursor}


def _market(exchange: Exchange, market: Market) -> dict[str, Any]:
    volume_e2 = exchange.tape.volume_e2(market.ticker)
    told = as_rest(market, exchange.source.structures[market.ticker], lambda ts: _moment(ts * 1000))
    bid, ask = exchange.tape.best(market.ticker)
    return told | {
        "yes_bid_dollars": dollars(bid),
        "yes_ask_dollars": dollars(ask),
        "volume": volume_e2 // 100,
        "volume_fp": contracts(volume_e2),
        "volume_24h": volume_e2 // 100,
        "volume_24h_fp": contracts(volume_e2),
    }


def _page(
    things: Sequence[T],
    query: Mapping[str, str],
    fits: Callable[[T], bool] = lambda thing: True,
    most: int = MOST,
) -> tuple[list[T], str]:
    """The cursor is a place among all things, which only become more: no change meanwhile moves it."""
    limit = _limit(query, most)
    page: list[T] = []
    for at in range(_number(query, "cursor", 0), len(things)):
        if fits(things[at]):
            if len(page) == limit:
                return page, str(at)
            page.append(things[at])
    return page, ""


def _limit(query: Mapping[str, str], most: int = MOST) -> int:
    """How many at once: one at least, or a cursor would stay where it is."""
    return min(max(_number(query, "limit", 100), 1), most)


def _moment(unix_ms: int) -> str:
    second, ms = divmod(unix_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{ms:03d}Z"


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise _WrongRequestError(f"{name}: expected a whole number, got {text[:40]!r}")
    return int(text)


def _json(content: dict[str, Any]) -> Answer:
    return Answer(HTTPStatus.OK, json.dumps(content).encode())


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, json.dumps({"error": {"code": code, "message": message}}).encode())
