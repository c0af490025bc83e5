"""The objects of the REST interface: markets, events, series, trades and books as the exchange writes them.

Keys and forms of values are those of recorded bodies of 2026 (tests/exchange in the repository): keys are
sorted, prices are texts with four decimals, sizes with two, times drop the trailing zeros of their fraction.
What nobody has recorded is named in ``unseen``. Not here: requests, filters and pages (``rest``).
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.simulator import grids
from kalshi_fast.simulator.events import title
from kalshi_fast.simulator.life import announced_metadata, metadata
from kalshi_fast.simulator.tape import contracts, dollars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.frames import TrueBook
    from kalshi_fast.simulator.life import Market
    from kalshi_fast.simulator.tape import Traded

NEVER: Final = "0001-01-01T00:00:00Z"  # what the exchange writes for a time that it does not know
_HOUR_S: Final = 3600


def moment(unix_us: int) -> str:
    """RFC 3339 with as many digits of the fraction as it needs."""
    second, us = divmod(unix_us, 1_000_000)
    fraction = f".{us:06d}".rstrip("0") if us else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}{fraction}Z"


def market_object(exchange: Exchange, market: Market) -> dict[str, Any]:
    """A market, in whatever state."""
    bid, ask = exchange.tape.best(market.ticker)
    book = exchange.source.books[market.ticker]
    over = market.status == "finalized"
    if market.legs and not any(book.sides):
        bid, ask = 0, 0  # so an empty combination reads
    last, volume_e2 = exchange.tape.last_price_e4(market.ticker), exchange.tape.volume_e2(market.ticker)
    structure = exchange.source.structures[market.ticker]
    about = announced_metadata(market)
    created_us = market.open_ts * 1_000_000 - 1_000_000 + zlib.crc32(market.ticker.encode()) % 1_000_000
    updated_us = market.settled_us or created_us
    told = {
        "can_close_early": True,
        "close_time": moment(market.close_ts * 1_000_000),
        "created_time": moment(created_us),
        "event_ticker": market.event_ticker,
        "exchange_index": 1 if market.legs else 0,
        "expected_expiration_time": moment((market.close_ts + _HOUR_S) * 1_000_000),
        "expiration_time": moment((market.close_ts + 2 * _HOUR_S) * 1_000_000),
        "expiration_value": "",
        "last_price_dollars": dollars(last),
        "latest_expiration_time": moment((market.close_ts + 2 * _HOUR_S) * 1_000_000),
        "liquidity_dollars": "0.0000",
        "market_type": "binary",
        "no_ask_dollars": dollars(10_000 - bid),
        "no_bid_dollars": dollars(10_000 - ask),
        "no_sub_title": about["no_sub_title"],
        "notional_value_dollars": "1.0000",
        "open_interest_fp": contracts(exchange.tape.open_interest_e2(market.ticker)),
        "open_time": moment(market.open_ts * 1_000_000),
        "previous_price_dollars": dollars(last),
        "previous_yes_ask_dollars": dollars(ask),
        "previous_yes_bid_dollars": dollars(bid),
        "price_level_structure": structure,
        "price_ranges": [
            {"end": found.end, "start": found.start, "step": found.step}
            for found in grids.price_ranges(structure)
        ],
        "result": market.result,
        "rules_primary": about["rules_primary"],
        "rules_secondary": about["rules_secondary"],
        "settlement_timer_seconds": 300,
        "status": market.status,
        "ticker": market.ticker,
        "title": about["title"],
        "updated_time": moment(updated_us),
        "volume_24h_fp": contracts(volume_e2),
        "volume_fp": contracts(volume_e2),
        "yes_ask_dollars": dollars(ask),
        "yes_ask_size_fp": contracts(book.sides[1].get(10_000 - ask, 0)),
        "yes_bid_dollars": dollars(bid),
        "yes_bid_size_fp": contracts(book.sides[0].get(bid, 0)),
        "yes_sub_title": about["yes_sub_title"],
    }
    if market.legs:
        told |= _of_combination(market, over=over)
    else:
        told |= {name: metadata(market)[name] for name in ("strike_type", "floor_strike")}
    if over:
        told["settlement_ts"] = moment(updated_us)
        told["settlement_value_dollars"] = "1.0000" if market.result == "yes" else "0.0000"
    return dict(sorted(told.items()))


def _of_combination(market: Market, *, over: bool) -> dict[str, Any]:
    events, tickers, sides = zip(*market.legs, strict=True)
    wording = ",".join(f"{side} {ticker}" for _, ticker, side in market.legs)
    told: dict[str, Any] = {
        "custom_strike": {
            "Associated Events": ",".join(events),
            "Associated Market Sides": ",".join(sides),
            "Associated Markets": ",".join(tickers),
            "Multivariate Event Ticker": market.event_ticker,
        },
        "mve_collection_ticker": f"{market.series_ticker}-R",
        "mve_selected_legs": [
            {"event_ticker": event, "market_ticker": ticker, "side": side}
            for event, ticker, side in market.legs
        ],
        "no_sub_title": wording,
        "rules_primary": "",
        "settlement_timer_seconds": 5,
        "strike_type": "custom",
        "title": wording,
        "yes_sub_title": wording,
    }
    return told if over else {**told, "is_provisional": True}


def orderbook(book: TrueBook | None) -> dict[str, Any]:
    """Both sides as bids on their own scales, ascending; a market without a book reads as an empty one."""
    sides = ({}, {}) if book is None else book.sides
    yes, no = ([[dollars(price), contracts(size)] for price, size in sorted(side.items())] for side in sides)
    return {"no_dollars": no, "yes_dollars": yes}


def event_object(market: Market, updated: str = NEVER) -> dict[str, Any]:
    """The event of a market."""
    return {
        "category": "Science",
        "collateral_return_type": "",
        "event_ticker": market.event_ticker,
        "exchange_index": 0,
        "last_updated_ts": updated,
        "mutually_exclusive": False,
        "series_ticker": market.series_ticker,
        "settlement_sources": None,
        "strike_period": "",
        "sub_title": "Simulated",
        "title": title(market.event_ticker),
    }


def series_object(ticker: str) -> dict[str, Any]:
    return {
        "additional_prohibitions": None,
        "category": "Science",
        "contract_terms_url": "",
        "contract_url": "",
        "exchange_index": 0,
        "fee_multiplier": 1,
        "fee_type": "quadratic",
        "frequency": "custom",
        "last_updated_ts": NEVER,
        "product_metadata": None,
        "settlement_sources": None,
        "tags": None,
        "ticker": ticker,
        "title": f"Simulations {ticker}",
    }


def trade_object(trade: Traded) -> dict[str, Any]:
    return {
        "count_fp": contracts(trade.qty_e2),
        "created_time": moment(trade.ts_us),
        "is_block_trade": False,
        "no_price_dollars": dollars(10_000 - trade.yes_price_e4),
        "taker_book_side": "bid" if trade.taker_side == "yes" else "ask",
        "taker_outcome_side": trade.taker_side,
        "taker_side": trade.taker_side,
        "ticker": trade.ticker,
        "trade_id": trade.trade_id,
        "yes_price_dollars": dollars(trade.yes_price_e4),
    }


def or_null(things: Iterable[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """An empty list may be null: clients have to read both."""
    return list(things) or None
