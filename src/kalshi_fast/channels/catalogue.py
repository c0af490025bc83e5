"""What is known of each market: told by its life-cycle events and by REST, one whole row at each change.

A row of ``markets`` takes the place of the one before it, so there is none before a market is known as a
whole: from its creation, or from REST. Bounded: beyond MOST_MARKETS those that are settled are forgotten
first, then the oldest, and are asked for again when they are told of. Not here: asking (``backfill``), rows
on their way (``streams``).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast._decode import price_e4, rfc3339_us
from kalshi_fast.channels.rows import STRIKE_DIGITS, MarketRow
from kalshi_fast.errors import FieldError

if TYPE_CHECKING:
    from kalshi_fast.channels.messages import LifecycleBody, PriceRange, RestMarket

MOST_MARKETS: Final = 50_000
TEXT_CHARS: Final = 4000
_STRIKE_DIGITS: Final = 38 - STRIKE_DIGITS
# What an event makes of a market's status, in the words of REST.
_STATUS: Final = {
    "created": "initialized",
    "activated": "active",
    "deactivated": "inactive",
    "determined": "determined",
    "settled": "finalized",
}


class Catalogue:
    """``ticker in catalogue``: it is known as a whole."""

    def __init__(self, most: int = MOST_MARKETS) -> None:
        self._most = most
        self._rows: dict[str, MarketRow] = {}

    def __contains__(self, ticker: str) -> bool:
        return ticker in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def apply(self, body: LifecycleBody, version: int) -> MarketRow | None:
        """The row after this event; None when the market was not known before and this is not its
        beginning."""
        row = self._rows.get(body.market_ticker)
        if row is None:
            if body.event_type != "created":
                return None
            row = MarketRow(body.market_ticker)
        more = body.additional_metadata or {}
        changes = {
            "event_ticker": _text(more.get("event_ticker")),
            "series_ticker": _text(more.get("series_ticker")),
            "title": _text(body.title or more.get("title")),
            "subtitle": _text(body.yes_sub_title or more.get("yes_sub_title") or more.get("subtitle")),
            "strike_type": _text(body.strike_type or more.get("strike_type")),
            "floor_strike": _strike(_either(body.floor_strike, more.get("floor_strike"))),
            "cap_strike": _strike(_either(body.cap_strike, more.get("cap_strike"))),
            "status": _STATUS.get(body.event_type, ""),
            "price_level_structure": _text(body.price_level_structure),
            "price_ranges": _ranges(body.price_ranges),
            "open_ts_ms": _ms(body.open_ts),
            "close_ts_ms": _ms(body.close_ts),
            "expiration_ts_ms": _ms(more.get("expected_expiration_ts")),
            "determination_ts_ms": _ms(body.determination_ts),
            "settled_ts_ms": _ms(body.settled_ts),
            "result": _text(body.result),
            "settlement_value_e4": _settlement(body.settlement_value),
        }
        told = {name: value for name, value in changes.items() if value not in ("", None)}
        return self._keep(msgspec.structs.replace(row, **told, version=version))

    def learn(self, market: RestMarket, version: int) -> MarketRow | None:
        """The row as REST has it; None when nothing is new.

        ``version``: when REST was asked. What has been announced since is newer than the answer.
        """
        before = self._rows.get(market.ticker)
        if before is not None and before.version > version:
            return None
        row = msgspec.structs.replace(
            before or MarketRow(market.ticker),
            event_ticker=_text(market.event_ticker),
            series_ticker=_text(market.series_ticker) or (before.series_ticker if before else ""),
            title=_text(market.title),
            subtitle=_text(market.yes_sub_title) or _text(market.subtitle),
            status=_text(market.status),
            strike_type=_text(market.strike_type),
            floor_strike=_strike(market.floor_strike),
            cap_strike=_strike(market.cap_strike),
            price_level_structure=_text(market.price_level_structure),
            price_ranges=_ranges(market.price_ranges),
            open_ts_ms=_moment_ms(market.open_time),
            close_ts_ms=_moment_ms(market.close_time),
            expiration_ts_ms=_moment_ms(market.expiration_time),
            result=_text(market.result),
            settlement_value_e4=_settlement(market.settlement_value_dollars),
        )
        return None if row == before else self._keep(msgspec.structs.replace(row, version=version))

    def _keep(self, row: MarketRow) -> MarketRow:
        if row.market_ticker not in self._rows and len(self._rows) >= self._most:
            settled = (ticker for ticker, known in self._rows.items() if known.status == "finalized")
            del self._rows[next(settled, next(iter(self._rows)))]
        self._rows[row.market_ticker] = row
        return row


def _either(first: object, second: object) -> object:
    return second if first is None else first


def _text(value: object) -> str:
    return value[:TEXT_CHARS] if isinstance(value, str) else ""


def _ms(seconds: object) -> int | None:
    return seconds * 1000 if isinstance(seconds, int) and 0 <= seconds < 2**33 else None


def _moment_ms(text: str | None) -> int | None:
    try:
        return None if not text else rfc3339_us(text) // 1000
    except FieldError:
        return None


def _strike(value: Any) -> Decimal | None:  # noqa: ANN401 - whatever the exchange says
    """Exact, with as many digits as the column has; None for what is none or does not fit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        strike = Decimal(str(value))
        fits = (
            strike.is_finite() and abs(strike) < 10**_STRIKE_DIGITS and strike == round(strike, STRIKE_DIGITS)
        )
    except InvalidOperation:
        return None
    return strike if fits else None


def _settlement(value: Decimal | str | None) -> int | None:
    try:
        return None if value in (None, "") else price_e4(str(value))
    except FieldError:
        return None


def _ranges(ranges: list[PriceRange] | None) -> str:
    text = msgspec.json.encode(ranges).decode() if ranges else ""
    return text if len(text) <= TEXT_CHARS else ""  # cut off it would be no JSON
