"""The exchange's REST interface, as far as a recorder asks: signed requests, pages, filters, refusals.

Served on the port of the WebSocket. Combinations are listed first, as the newest are: of the first 30,000
open markets of production 29,998 were such. Source: recorded bodies of 2026, Kalshi's OpenAPI document 3.30.0
(one status a request, at most 1000 a page, an empty cursor on the last one). It can be made to fail:
``conditions.rest_faults`` says how the next requests are answered. Not here: what is traded (``tape``), what
lives (``life``), what objects look like (``rest_objects``).
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from bisect import bisect_left, bisect_right
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from kalshi_fast.simulator.handshake import refusal
from kalshi_fast.simulator.rest_objects import (
    event_object,
    market_object,
    moment,
    or_null,
    orderbook,
    series_object,
    trade_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kalshi_fast.simulator.exchange import Exchange
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
    "closed": ("closed", "determined", "disputed", "amended"),
    "settled": ("finalized",),
}
T = TypeVar("T")


MOST_BOOKS: Final = 100
_LINES: Final = ("/markets", "/events", "/series")  # whose bodies end with a newline


class _WrongRequestError(Exception):
    """A parameter that cannot be; the text goes into the answer as its details."""


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
            return _error(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests")._replace(
                retry_after_s=value or None
            )
        if kind == "rest_error":
            return _error(value, "internal_server_error")
        return _error(HTTPStatus.OK, "cut")._replace(cut=True)
    if exchange.conditions.refusal is not None:
        status, code, message = exchange.conditions.refusal
        return _error(status, code, message=message)
    refused = refusal(headers, keys, time.time_ns() // 1_000_000, parts.path)
    if refused is not None:
        return _error(HTTPStatus.UNAUTHORIZED, refused[0], message=refused[1])
    asked = parse_qsl(parts.query)
    query = dict(asked)
    exchange.stats.rest_requests += 1
    path = parts.path.removeprefix(ROOT)
    found: dict[str, Any] | None
    try:
        if path == "/markets/orderbooks":
            found = _orderbooks(exchange, [value for name, value in asked if name == "tickers"])
        else:
            found = _found(exchange, path, query)
    except _WrongRequestError as error:
        return _error(HTTPStatus.BAD_REQUEST, "bad_request", details=str(error))
    if found is None:
        return _error(HTTPStatus.NOT_FOUND, "not_found", service="simulator")
    return _json(
        found, newline=path.startswith(_LINES) and not path.endswith(("/orderbook", "/trades", "/orderbooks"))
    )


def _trades(exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
    tape = exchange.tape
    first_ms = _number(query, "min_ts", 0) * 1000
    last_ms = _number(query, "max_ts", 2**40) * 1000
    low = bisect_left(tape.trades, first_ms, key=lambda trade: trade.ts_ms)
    at = bisect_right(tape.trades, last_ms, key=lambda trade: trade.ts_ms)
    if query.get("cursor"):
        at = min(max(_place(query) - tape.first, 0), len(tape.trades))
    limit, ticker = _limit(query), query.get("ticker")
    found: list[Traded] = []
    while at > low and len(found) < limit:
        at -= 1
        if ticker is None or tape.trades[at].ticker == ticker:
            found.append(tape.trades[at])
    cursor = _cursor(at + tape.first) if at > low else ""
    return {"cursor": cursor, "trades": [trade_object(trade) for trade in found]}


def _found(exchange: Exchange, path: str, query: Mapping[str, str]) -> dict[str, Any] | None:
    """Markets, events, series: all of them, or one by its name. None: there is none of that name."""
    if path == "/exchange/status":
        return {"exchange_active": True, "trading_active": not exchange.finished.is_set()}
    if path == "/markets/trades":
        return _trades(exchange, query)
    markets = exchange.life.markets
    if path == "/markets":
        return _markets(exchange, query)
    kind, _, name = path.removeprefix("/").partition("/")
    if kind == "markets":
        ticker = name.removesuffix("/orderbook")
        if ticker not in markets:
            return None
        if ticker != name:
            return {"orderbook_fp": orderbook(exchange.source.books.get(ticker))}
        return {"market": market_object(exchange, markets[name])}
    if kind == "events":
        return _events(exchange, name, query)
    if kind == "series":
        series = {market.series_ticker: None for market in markets.values()}
        if not name:
            return {"series": or_null(series_object(ticker) for ticker in series)}
        return {"series": series_object(name)} if name in series else None
    return None


def _orderbooks(exchange: Exchange, tickers: list[str]) -> dict[str, Any]:
    """One book for each name, also for one that there is not: names joined by commas are one name."""
    if not 1 <= len(tickers) <= MOST_BOOKS:
        raise _WrongRequestError("invalid tickers")
    books = exchange.source.books
    return {
        "orderbooks": [{"ticker": ticker, "orderbook_fp": orderbook(books.get(ticker))} for ticker in tickers]
    }


def _events(exchange: Exchange, name: str, query: Mapping[str, str]) -> dict[str, Any] | None:
    """Events of combinations are none of the list, which is another endpoint's."""
    nested = query.get("with_nested_markets") == "true"
    events: dict[str, list[Market]] = {}
    for market in exchange.life.markets.values():
        if name or (not market.legs and query.get("series_ticker") in (None, market.series_ticker)):
            events.setdefault(market.event_ticker, []).append(market)

    def markets_of(event: str) -> list[dict[str, Any]] | None:
        return or_null(market_object(exchange, market) for market in events[event])

    def told(event: str, updated: str | None = None) -> dict[str, Any]:
        found = event_object(events[event][0], *filter(None, [updated]))
        return dict(sorted({**found, "markets": markets_of(event)}.items())) if nested else found

    if not name:
        page, cursor = _page(list(events), query, most=200)
        now = moment(time.time_ns() // 1000)
        return {"cursor": cursor, "events": or_null(told(event, now) for event in page), "milestones": []}
    if name not in events:
        return None
    return {"event": told(name)} if nested else {"event": told(name), "markets": markets_of(name)}


def _markets(exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
    named = {ticker for ticker in query.get("tickers", "").split(",") if ticker}
    status, combinations = query.get("status", ""), query.get("mve_filter", "")
    if status and status not in STATUSES:
        raise _WrongRequestError("invalid status filter")
    if combinations not in ("", "exclude", "only"):
        raise _WrongRequestError("invalid mve filter")
    wanted = STATUSES.get(status)
    low, high = _number(query, "min_close_ts", 0), _number(query, "max_close_ts", 2**40)

    def fits(market: Market) -> bool:
        return (
            (not named or market.ticker in named)
            and (wanted is None or market.status in wanted)
            and (not combinations or bool(market.legs) == (combinations == "only"))
            and query.get("series_ticker") in (None, market.series_ticker)
            and query.get("event_ticker") in (None, market.event_ticker)
            and low <= market.close_ts <= high
        )

    page, cursor = _page(list(exchange.life.markets.values()), query, fits)
    return {"cursor": cursor, "markets": or_null(market_object(exchange, market) for market in page)}


def _page(
    things: Sequence[T],
    query: Mapping[str, str],
    fits: Callable[[T], bool] = lambda thing: True,
    most: int = MOST,
) -> tuple[list[T], str]:
    """The cursor is a place among all things, which only become more: no change meanwhile moves it."""
    limit = _limit(query, most)
    page: list[T] = []
    for at in range(_place(query), len(things)):
        if fits(things[at]):
            if len(page) == limit:
                return page, _cursor(at)
            page.append(things[at])
    return page, ""


def _limit(query: Mapping[str, str], most: int = MOST) -> int:
    """How many at once: one at least, or a cursor would stay where it is."""
    return min(max(_number(query, "limit", 100), 1), most)


def _cursor(at: int) -> str:
    """Nothing that a client could make sense of."""
    return base64.urlsafe_b64encode(f"at {at}".encode()).decode().rstrip("=")


def _place(query: Mapping[str, str]) -> int:
    """Where a page begins, by the cursor."""
    text = query.get("cursor", "")
    try:
        told = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise _WrongRequestError("invalid cursor") from None
    digits = told.removeprefix("at ")
    if text and not (digits != told and digits.isdigit() and len(digits) <= 15):
        raise _WrongRequestError("invalid cursor")
    return int(digits) if text else 0


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise _WrongRequestError(f"invalid {name}")
    return int(text)


def _json(content: dict[str, Any], *, newline: bool = False) -> Answer:
    return Answer(HTTPStatus.OK, _written(content) + (b"\n" if newline else b""))


def _error(status: int, code: str, *, message: str = "", **more: str) -> Answer:
    return Answer(
        status, _written({"error": {"code": code, "message": message or code.replace("_", " "), **more}})
    )


def _written(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
