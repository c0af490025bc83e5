"""What REST answers, as msgspec structs, and pages of it that are read element by element.

Values stay as the exchange wrote them. A market, trade or event that lacks what it means nothing without is
left out; any other field that is missing, null or of another type costs itself. Both are counted. Source:
Kalshi's OpenAPI document 3.30.0 and recordings of September 2026: keys are sorted, lists can be null, the
market object has no ``series_ticker``. Not here: requests (``rest``), what is kept of a market
(``channels.catalogue``).
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from kalshi_fast.channels.messages import PriceRange
from kalshi_fast.errors import RestError, excerpt, reason
from kalshi_fast.scalars import Side

COMBINATIONS: Final = "KXMVE"  # tickers of combination (multivariate) markets begin so

_MOST_ERROR_BYTES: Final = 200

S = TypeVar("S", bound=Struct)


class RestTrade(Struct, gc=False, omit_defaults=True):
    """A trade as ``GET /markets/trades`` tells it."""

    trade_id: str
    ticker: str
    taker_side: Side | None = None
    created_time: str | None = None
    taker_outcome_side: Side | None = None
    taker_book_side: str | None = None
    yes_price_dollars: str | None = None
    no_price_dollars: str | None = None
    count_fp: str | None = None
    yes_price: int | None = None
    no_price: int | None = None
    count: int | None = None
    is_block_trade: bool = False


class RestMarket(Struct, omit_defaults=True):
    """A market as ``GET /markets`` tells it, as far as it is kept or shown."""

    ticker: str
    event_ticker: str | None = None
    series_ticker: str | None = None  # of old answers
    title: str | None = None
    subtitle: str | None = None
    yes_sub_title: str | None = None
    no_sub_title: str | None = None
    status: str | None = None
    strike_type: str | None = None
    floor_strike: Decimal | None = None
    cap_strike: Decimal | None = None
    custom_strike: dict[str, Any] | None = None
    price_level_structure: str | None = None
    price_ranges: list[PriceRange] | None = None
    open_time: str | None = None
    close_time: str | None = None
    expected_expiration_time: str | None = None
    expiration_time: str | None = None
    latest_expiration_time: str | None = None
    result: str | None = None
    expiration_value: str | None = None
    settlement_value_dollars: str | None = None
    settlement_ts: str | None = None
    rules_primary: str | None = None
    rules_secondary: str | None = None
    mve_collection_ticker: str | None = None
    mve_selected_legs: list[dict[str, Any]] | None = None
    is_provisional: bool = False
    exchange_index: int | None = None
    volume_fp: str | None = None
    volume: int | None = None
    volume_24h_fp: str | None = None
    volume_24h: int | None = None
    yes_bid_dollars: str | None = None
    yes_ask_dollars: str | None = None


class RestEvent(Struct, omit_defaults=True):
    """An event as ``GET /events`` tells it, as far as it is looked at. ``markets``: when asked for with
    them."""

    event_ticker: str
    series_ticker: str | None = None
    title: str | None = None
    sub_title: str | None = None
    markets: list[msgspec.Raw] | None = None


class RestSeries(Struct, omit_defaults=True):
    """A series as ``GET /series`` tells it, as far as it is looked at."""

    ticker: str
    title: str | None = None


class TradePage(Struct):
    """``cursor``: of the next page, empty on the last one."""

    trades: list[RestTrade] = []
    cursor: str | None = None


class MarketPage(Struct):
    """``cursor``: of the next page, empty on the last one."""

    markets: list[RestMarket] = []
    cursor: str | None = None


class EventPage(Struct):
    """``cursor``: of the next page, empty on the last one."""

    events: list[RestEvent] = []
    cursor: str | None = None


class SeriesPage(Struct):
    """All of it at once: this list has no cursor."""

    series: list[RestSeries] = []
    cursor: str | None = None


class Unread:
    """What could not be used of REST's answers since it was last taken, by field; ``first``: what was
    wrong."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()  # elements, by what they are
        self.fields: Counter[tuple[str, str]] = Counter()  # fields that cost themselves: (what, field)
        self.first = ""

    def leave_out(self, what: str, why: str) -> None:
        self.left_out[what] += 1
        self.first = self.first or f"{what}: {why}"

    def lose(self, what: str, field: str, value: bytes, why: str) -> None:
        self.fields[what, field] += 1
        self.first = (
            self.first or f"{what}: {field}: {why}, got {excerpt(value[:40].decode(errors='replace'))}"
        )

    def clear(self) -> None:
        self.left_out.clear()
        self.fields.clear()
        self.first = ""

    def sentence(self) -> str:
        """Nothing when there is nothing to say."""
        parts = [f"{count} {what}s of no use" for what, count in sorted(self.left_out.items())]
        parts += [
            f"{count} times no usable {what}.{name}" for (what, name), count in sorted(self.fields.items())
        ]
        return f"{', '.join(parts)} ({self.first})" if parts else ""


class Elements(Generic[S]):
    """``Elements(struct, what)``: reads single elements of a list, each as well as it can be read."""

    def __init__(self, struct: type[S], what: str) -> None:
        self.what = what
        self._struct = struct
        self._whole = msgspec.json.Decoder(struct)
        self._object = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._fields = {
            field.encode_name: (field, msgspec.json.Decoder(field.type))
            for field in msgspec.structs.fields(struct)
        }

    def read(self, raw: msgspec.Raw, unread: Unread) -> S | None:
        """None, and counted, when what it means nothing without is missing or of another kind."""
        try:
            return self._whole.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._by_field(raw, unread)

    def many(self, raws: list[msgspec.Raw] | None, unread: Unread) -> list[S]:
        """Those of a list that can be used."""
        found = (self.read(raw, unread) for raw in raws or ())
        return [element for element in found if element is not None]

    def _by_field(self, raw: msgspec.Raw, unread: Unread) -> S | None:
        try:
            told = self._object.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            unread.leave_out(self.what, reason(error))
            return None
        values = {}
        for name, (field, decoder) in self._fields.items():
            if name not in told:
                if field.required:
                    unread.leave_out(self.what, f"{name}: expected a value, got none")
                    return None
                continue
            written = bytes(told[name])
            try:
                values[field.name] = decoder.decode(written)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if field.required:
                    unread.leave_out(self.what, f"{name}: {reason(error)}")
                    return None
                found = _in_another_form(written, field.type)
                if found is not None:
                    values[field.name] = found
                elif written not in (b"null", b'""'):
                    unread.lose(self.what, name, written, reason(error))
        return self._struct(**values)


def _in_another_form(written: bytes, kind: Any) -> Any:  # noqa: ANN401 - of the field's type
    """A number where a text is usual, or ``2.0`` where ``2`` is; None: it is none."""
    try:
        number = msgspec.json.decode(written, type=Decimal, strict=False)
        if number.is_finite() and abs(number.adjusted()) < 20:
            text = f"{number:f}"
            whole = text.partition(".")[0] if number == number.to_integral_value() else text
            for form in (text, int(whole)) if whole.lstrip("-").isdigit() else (text,):
                try:
                    return msgspec.convert(form, kind)
                except msgspec.ValidationError:
                    continue
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError):
        return None
    return None


MARKETS: Final = Elements(RestMarket, "market")
TRADES: Final = Elements(RestTrade, "trade")
EVENTS: Final = Elements(RestEvent, "event")
SERIES: Final = Elements(RestSeries, "series")
_page = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw] | None)
_cursor = msgspec.json.Decoder(str | None)
PAGES: Final = (TradePage, MarketPage, EventPage, SeriesPage)
P = TypeVar("P")
_PAGES: Final[dict[type, tuple[str, Elements[Any]]]] = {
    TradePage: ("trades", TRADES),
    MarketPage: ("markets", MARKETS),
    EventPage: ("events", EVENTS),
    SeriesPage: ("series", SERIES),
}


def read_page(body: bytes, page: type[P], unread: Unread) -> P:
    """One page. Raises RestError when it is no page of this kind, or when where it goes on cannot be read."""
    name, elements = _PAGES[page]
    made: Any = page
    try:
        told = _page.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RestError(f"expected an object with {name}, got another body ({reason(error)})") from error
    if name not in told:
        raise RestError(
            f"expected an object with {name}, got one with {excerpt(', '.join(told) or 'nothing')}"
        )
    try:
        found = elements.many(_list.decode(told[name]), unread)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RestError(f"{name}: expected a list ({reason(error)})") from error
    try:
        cursor = _cursor.decode(told.get("cursor", msgspec.Raw(b"null")))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RestError(f"cursor: expected a text ({reason(error)})") from error
    read: P = made(found, cursor)
    return read


def is_combination(market: RestMarket) -> bool:
    """Made of other markets: by its name, or because it says of which."""
    return names_combination(market.ticker) or bool(market.mve_collection_ticker or market.mve_selected_legs)


def names_combination(ticker: str) -> bool:
    """The same of a name alone; also of an event, a series or a pattern."""
    return ticker.startswith(COMBINATIONS)


def series_of(market: RestMarket) -> str:
    """The series of a market: what its event ticker begins with, up to the first ``-``.

    So it is in every recording; ``GET /events/{ticker}`` says it too, for one request more."""
    return market.series_ticker or (market.event_ticker or market.ticker).partition("-")[0]


def error_text(body: bytes) -> str:
    """What the body of an error says, in one line, whichever of its shapes it has:
    ``{"error":{"code","message", "details"}}``, ``{"error":"…"}``, ``{"code","message"}``, or no JSON at
    all."""
    text = body[:_MOST_ERROR_BYTES].decode("utf-8", "replace")
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _in_one_line(text)
    inner = told.get("error", told)
    if isinstance(inner, dict):
        said = [inner.get(name) for name in ("message", "details", "msg")]
        said = list(dict.fromkeys(part for part in said if isinstance(part, str) and part)) or [
            inner.get("code")
        ]
        text = ": ".join(part for part in said if isinstance(part, str)) or text
    elif isinstance(inner, str) and inner:
        text = inner
    return _in_one_line(text)


def _in_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if line.isprintable() and len(line) <= _MOST_ERROR_BYTES else excerpt(line)
