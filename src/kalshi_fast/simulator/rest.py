"""The exchange's REST interface, as far as a recorder asks: signed requests, pages, filters, refusals.

Served on the port of the WebSocket. Source: Kalshi's API documentation (lists newest first, at most 1000 a
page, an empty cursor on the last one). Not here: what is traded (``tape``), what lives (``life``).
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left, bisect_right
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from kalshi_fast.simulator.handshake import refusal
from kalshi_fast.simulator.life import as_rest
from kalshi_fast.simulator.tape import contracts, dollars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import rsa

    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.tape import Traded

ROOT: Final = "/trade-api/v2"
MOST: Final = 1000


class _WrongRequestError(Exception):
    """A parameter that cannot be."""


def answer(
    exchange: Exchange, target: str, headers: Mapping[str, str], keys: Mapping[str, rsa.RSAPublicKey]
) -> tuple[int, bytes]:
    """Status and JSON of the answer to a GET."""
    parts = urlsplit(target)
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
        if parts.path == f"{ROOT}/markets":
            return _json(_markets(exchange, query))
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
    limit, ticker = min(_number(query, "limit", 100), MOST), query.get("ticker")
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


def _markets(exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
    markets, structures = exchange.life.markets, exchange.source.structures
    named = [ticker for ticker in query.get("tickers", "").split(",") if ticker]
    status = {"open": ("active",), "closed": ("inactive", "determined"), "settled": ("finalized",)}
    wanted = status.get(query.get("status", ""))
    found = [
        market
        for market in markets.values()
        if (not named or market.ticker in named) and (wanted is None or market.status in wanted)
    ]
    at, limit = _number(query, "cursor", 0), min(_number(query, "limit", 100), MOST)
    page = found[at : at + limit]
    return {
        "markets": [
            as_rest(market, structures[market.ticker], lambda ts: _moment(ts * 1000)) for market in page
        ],
        "cursor": str(at + limit) if at + limit < len(found) else "",
    }


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


def _json(content: dict[str, Any]) -> tuple[int, bytes]:
    return HTTPStatus.OK, json.dumps(content).encode()


def _error(status: int, code: str, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"code": code, "message": message}}).encode()
