"""What is known of each market: told by its life-cycle events and by REST, one whole row at each change.

A row of ``markets`` takes the place of the one before it, so there is none before a market is known as a
whole: from its creation, or from REST. A value that cannot be (a time in year 1, a strike that is no number)
is empty in the row and costs nothing else. Bounded: beyond MOST_MARKETS, or MOST_CHARS of text, those that
are settled are forgotten first, then the oldest, and are asked for again when they are told of. Not here:
asking (``backfill``), rows on their way (``streams``).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast._decode import price_e4, rfc3339_us
from kalshi_fast.channels.rows import STRIKE_DIGITS, MarketRow
from kalshi_fast.errors import FieldError
from kalshi_fast.rest_bodies import series_of
from kalshi_fast.statuses import ANNOUNCED, is_over

if TYPE_CHECKING:
    from kalshi_fast.channels.messages import LifecycleBody, PriceRange
    from kalshi_fast.rest_bodies import RestMarket

MOST_MARKETS: Final = 50_000
MOST_CHARS: Final = 64_000_000
TEXT_CHARS: Final = 4000
LONG_CHARS: Final = 16_000  # of rules, and of what is kept as JSON
_STRIKE_DIGITS: Final = 38 - STRIKE_DIGITS
_INT32: Final = 2**31


class Catalogue:
    """``ticker in catalogue``: it is known as a whole."""

    def __init__(self, most: int = MOST_MARKETS, most_chars: int = MOST_CHARS) -> None:
        self._most = most
        self._most_chars = most_chars
        self._chars = 0
        self._rows: dict[str, MarketRow] = {}
        self._texts: dict[str, str] = {}  # one of each: markets of one event share most of theirs

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
        yes_sub_title = _text(body.yes_sub_title or more.get("yes_sub_title"))
        event = _text(getattr(body, "event_ticker", None) or more.get("event_ticker"))
        changes = {
            "event_ticker": event,
            "series_ticker": _text(more.get("series_ticker"))
            or ("" if row.series_ticker else _series(event)),
            "title": _text(body.title or more.get("title")),
            "subtitle": _text(more.get("subtitle")),
            "yes_sub_title": yes_sub_title,
            "no_sub_title": _text(body.no_sub_title or more.get("no_sub_title")),
            "strike_type": _text(body.strike_type or more.get("strike_type")),
            "floor_strike": _strike(_either(body.floor_strike, more.get("floor_strike"))),
            "cap_strike": _strike(_either(body.cap_strike, more.get("cap_strike"))),
            "custom_strike": _json(_either(body.custom_strike, more.get("custom_strike"))),
            "status": ANNOUNCED.get(body.event_type, ""),
            "price_level_structure": _text(body.price_level_structure),
            "price_ranges": _ranges(body.price_ranges),
            "open_ts_ms": _ms(body.open_ts),
            "close_ts_ms": _ms(body.close_ts),
            "expected_expiration_ts_ms": _ms(more.get("expected_expiration_ts")),
            "determination_ts_ms": _ms(body.determination_ts),
            "settled_ts_ms": _ms(body.settled_ts),
            "result": _text(body.result),
            "settlement_value_e4": _settlement(body.settlement_value),
            "rules_primary": _text(more.get("rules_primary"), LONG_CHARS),
            "rules_secondary": _text(more.get("rules_secondary"), LONG_CHARS),
            "mve_collection_ticker": _text(more.get("mve_collection_ticker")),
            "mve_selected_legs": _json(more.get("mve_selected_legs")),
            "exchange_index": _int32(body.exchange_index),
        }
        told = {name: value for name, value in changes.items() if value not in ("", None)}
        if yes_sub_title and "subtitle" not in told and row.subtitle == row.yes_sub_title:
            told["subtitle"] = yes_sub_title
        return self._keep(msgspec.structs.replace(row, **told, version=version))

    def learn(self, market: RestMarket, version: int) -> MarketRow | None:
        """The row as REST has it; None when nothing is new.

        ``version``: when REST was asked. What has been announced since is newer than the answer.
        """
        before = self._rows.get(market.ticker)
        if before is not None and before.version > version:
            return None
        known = before or MarketRow(market.ticker)
        row = msgspec.structs.replace(
            known,
            event_ticker=_text(market.event_ticker),
            series_ticker=_text(market.series_ticker) or known.series_ticker or _text(series_of(market)),
            title=_text(market.title),
            subtitle=_text(market.subtitle) or _text(market.yes_sub_title),
            yes_sub_title=_text(market.yes_sub_title),
            no_sub_title=_text(market.no_sub_title),
            status=_text(market.status),
            strike_type=_text(market.strike_type),
            floor_strike=_strike(market.floor_strike),
            cap_strike=_strike(market.cap_strike),
            custom_strike=_json(market.custom_strike),
            price_level_structure=_text(market.price_level_structure),
            price_ranges=_ranges(market.price_ranges),
            open_ts_ms=_moment_ms(market.open_time),
            close_ts_ms=_moment_ms(market.close_time),
            expected_expiration_ts_ms=_moment_ms(market.expected_expiration_time),
            expiration_ts_ms=_moment_ms(market.expiration_time) or _moment_ms(market.latest_expiration_time),
            settled_ts_ms=_moment_ms(market.settlement_ts) or known.settled_ts_ms,
            settlement_value_e4=_settlement(market.settlement_value_dollars),
            result=_text(market.result),
            expiration_value=_text(market.expiration_value),
            rules_primary=_text(market.rules_primary, LONG_CHARS),
            rules_secondary=_text(market.rules_secondary, LONG_CHARS),
            mve_collection_ticker=_text(market.mve_collection_ticker),
            mve_selected_legs=_json(market.mve_selected_legs),
            is_provisional=market.is_provisional,
            exchange_index=_int32(market.exchange_index),
        )
        return None if row == before else self._keep(msgspec.structs.replace(row, version=version))

    def _keep(self, row: MarketRow) -> MarketRow:
        row = msgspec.structs.replace(row, **{name: self._shared(getattr(row, name)) for name in _LONG})
        before = self._rows.pop(row.market_ticker, None)
        self._chars += _chars(row) - (0 if before is None else _chars(before))
        while self._rows and (len(self._rows) >= self._most or self._chars > self._most_chars):
            over = (ticker for ticker, known in self._rows.items() if is_over(known.status))
            self._chars -= _chars(self._rows.pop(next(over, next(iter(self._rows)))))
        self._rows[row.market_ticker] = row
        return row

    def _shared(self, text: str) -> str:
        if len(self._texts) > 2 * self._most:
            self._texts.clear()
        return self._texts.setdefault(text, text)


# Fields whose texts are long, or the same in many markets.
_LONG: Final = (
    *("event_ticker", "series_ticker", "title", "subtitle", "yes_sub_title", "no_sub_title", "custom_strike"),
    *("price_ranges", "rules_primary", "rules_secondary", "mve_collection_ticker", "mve_selected_legs"),
)


def _chars(row: MarketRow) -> int:
    """About what its own texts take."""
    return len(row.title) + len(row.rules_primary) + len(row.custom_strike) + len(row.mve_selected_legs)


def _either(first: object, second: object) -> object:
    return second if first is None else first


def _text(value: object, most: int = TEXT_CHARS) -> str:
    return value[:most] if isinstance(value, str) else ""


def _series(event_ticker: str) -> str:
    return event_ticker.partition("-")[0]


def _json(value: object) -> str:
    """As the exchange has it; nothing when that is empty, or longer than a row may be."""
    if not isinstance(value, dict | list) or not value:
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONG_CHARS else ""  # cut off it would be no JSON


def _int32(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and -_INT32 <= value < _INT32
    return value if fits and isinstance(value, int) else None


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
