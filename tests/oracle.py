"""What recorded frames say, read a second time: json and Decimal, nothing of the package under test.

Books in dollars and contracts, each side on its own scale, and the rows that a store has to have. Not here:
which file is what (``recordings``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SIDES: Final = ("yes", "no")
BOOK_TYPES: Final = ("orderbook_snapshot", "orderbook_delta")
LIFECYCLE_TYPES: Final = (
    "market_lifecycle_v2",
    "event_lifecycle",
    "event_fee_update",
    "multivariate_market_lifecycle",
)
CHANNEL_OF_TYPE: Final = {
    "orderbook_snapshot": "orderbook_delta",
    "orderbook_delta": "orderbook_delta",
    "trade": "trade",
    "ticker": "ticker",
    "market_lifecycle_v2": "market_lifecycle_v2",
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
    "market_position": "market_positions",
    "rfq_created": "communications",
}

Side = dict[Decimal, Decimal]


def load(frame: bytes) -> dict[str, Any]:
    """A frame with exact numbers."""
    found: dict[str, Any] = json.loads(frame, parse_float=Decimal)
    return found


def channels(messages: Iterable[dict[str, Any]]) -> dict[int, set[str]]:
    """Which channels each sid of a file has: one, unless the file is a collection of several connections."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for message in messages:
        channel = CHANNEL_OF_TYPE.get(message["type"])
        if message["type"] == "subscribed":
            found[message["msg"]["sid"]].add(message["msg"]["channel"])
        elif channel is not None and "sid" in message:
            found[message["sid"]].add(channel)
    return dict(found)


def e4(dollars: Decimal) -> int:
    """Dollars in 1/10,000, which must be exact."""
    return exact(dollars * 10_000)


def e2(contracts: Decimal) -> int:
    return exact(contracts * 100)


def exact(value: Decimal) -> int:
    assert value == value.to_integral_value()
    return int(value)


def rfc3339_us(text: str) -> int:
    """Microseconds since 1970; what is finer is cut off."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(f"{whole}+00:00")
    return (moment - EPOCH) // timedelta(microseconds=1) + int(fraction[:6].ljust(6, "0"))


def book_ts_us(msg: dict[str, Any]) -> int | None:
    """``ts_ms``, with the microseconds of ``ts`` where both name the same millisecond."""
    ts_us = rfc3339_us(msg["ts"]) if "ts" in msg else None
    if "ts_ms" not in msg:
        return ts_us
    return ts_us if ts_us is not None and ts_us // 1000 == msg["ts_ms"] else msg["ts_ms"] * 1000


def level(msg: dict[str, Any], *, yes_scale: bool) -> tuple[str, Decimal, Decimal]:
    """Side, price and change of a delta; the price on its side's own scale."""
    price = Decimal(msg["price_dollars"]) if "price_dollars" in msg else Decimal(msg["price"]) / 100
    change = Decimal(msg["delta_fp"]) if "delta_fp" in msg else Decimal(msg["delta"])
    return msg["side"], 1 - price if yes_scale and msg["side"] == "no" else price, change


def ladders(msg: dict[str, Any], *, yes_scale: bool) -> dict[str, Side]:
    """Both sides of a snapshot."""
    found: dict[str, Side] = {}
    for side in SIDES:
        levels = {Decimal(p): Decimal(q) for p, q in msg.get(f"{side}_dollars_fp") or ()}
        levels |= {Decimal(p) / 100: Decimal(q) for p, q in msg.get(side) or ()}
        if yes_scale and side == "no":
            levels = {1 - price: size for price, size in levels.items()}
        found[side] = {price: size for price, size in levels.items() if size}
    return found


@dataclass(slots=True)
class Row:
    """A row of orderbook_events that a store has to have; ``ts_us`` None: the time of receipt."""

    kind: str
    ticker: str
    seq: int
    side: str
    price_e4: int
    qty_e2: int
    ts_us: int | None = None

    def key(self) -> tuple[Any, ...]:
        return (self.ticker, self.seq, self.kind, self.side, self.price_e4, self.qty_e2)


@dataclass(slots=True)
class Books:
    """Frames of one connection, in order: ``take`` each.

    ``known``: the books that are exact. A number that is missing makes all books of its sid unknown until
    their next snapshots; a level that would fall below zero that one book.
    """

    yes_scale: bool
    known: dict[str, dict[str, Side]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    gaps: int = 0
    below_zero: int = 0
    _next: dict[int, int] = field(default_factory=dict)
    _tickers: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def take(self, message: dict[str, Any]) -> None:
        sid, seq, kind = message.get("sid"), message.get("seq"), message["type"]
        if sid is not None and seq is not None:
            if seq != self._next.setdefault(sid, seq):
                self.gaps += 1
                for ticker in self._tickers[sid]:
                    self.known.pop(ticker, None)
            self._next[sid] = seq + 1
        if kind not in BOOK_TYPES:
            return
        assert sid is not None
        assert seq is not None
        msg = message["msg"]
        ticker = msg["market_ticker"]
        self._tickers[sid].add(ticker)
        if kind == "orderbook_snapshot":
            self.known[ticker] = ladders(msg, yes_scale=self.yes_scale)
            self.rows.append(Row("clear", ticker, seq, "yes", 0, 0))
            self.rows += [
                Row("snapshot", ticker, seq, side, e4(price), e2(size))
                for side, levels in self.known[ticker].items()
                for price, size in levels.items()
            ]
            return
        side, price, change = level(msg, yes_scale=self.yes_scale)
        book = self.known.get(ticker)
        if book is not None:
            size = book[side].get(price, Decimal(0)) + change
            if size < 0:
                del self.known[ticker]
                self.below_zero += 1
                return
            book[side][price] = size
            if not size:
                del book[side][price]
        self.rows.append(Row("delta", ticker, seq, side, e4(price), e2(change), book_ts_us(msg)))

    def integers(self) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
        """The known books in the units of the package: yes and no, price_e4 → qty_e2."""
        return {
            ticker: (
                {e4(price): e2(size) for price, size in book["yes"].items()},
                {e4(price): e2(size) for price, size in book["no"].items()},
            )
            for ticker, book in self.known.items()
        }


# --- the other channels -----------------------------------------------------------------------------------


def _price(msg: dict[str, Any], name: str) -> int | None:
    if msg.get(f"{name}_dollars"):
        return e4(Decimal(msg[f"{name}_dollars"]))
    return msg[name] * 100 if name in msg else None


def _size(msg: dict[str, Any], name: str) -> int | None:
    if msg.get(f"{name}_fp"):
        return e2(Decimal(msg[f"{name}_fp"]))
    return msg[name] * 100 if name in msg else None


def _ts_us(msg: dict[str, Any], text: str | None) -> int:
    """``ts_ms`` or ``ts`` (whole seconds), with the microseconds of ``text`` where it names the same time."""
    unit_us = 1000 if "ts_ms" in msg else 1_000_000
    ts_us: int = msg["ts_ms"] * 1000 if "ts_ms" in msg else msg["ts"] * 1_000_000
    if text is not None and rfc3339_us(text) // unit_us == ts_us // unit_us:
        return rfc3339_us(text)
    return ts_us


def trade(message: dict[str, Any]) -> dict[str, Any]:
    """The row of a trade, as far as the frame says it."""
    msg = message["msg"]
    return {
        "sid": message["sid"],
        "seq": message["seq"],
        "trade_id": msg["trade_id"],
        "market_ticker": msg["market_ticker"],
        "taker_side": msg.get("taker_outcome_side") or msg["taker_side"],
        "is_block": msg.get("is_block_trade", False),
        "yes_price_e4": _price(msg, "yes_price"),
        "qty_e2": _size(msg, "count"),
        "ts_us": _ts_us(msg, None),
    }


def ticker(message: dict[str, Any]) -> dict[str, Any]:
    """The row of a ticker, as far as the frame says it; None: no value."""
    msg = message["msg"]
    return {
        "sid": message["sid"],
        "market_ticker": msg["market_ticker"],
        "price_e4": None if msg.get("price_dollars") == "" else _price(msg, "price"),
        "yes_bid_e4": _price(msg, "yes_bid"),
        "yes_ask_e4": _price(msg, "yes_ask"),
        "yes_bid_qty_e2": _size(msg, "yes_bid_size"),
        "yes_ask_qty_e2": _size(msg, "yes_ask_size"),
        "last_trade_qty_e2": _size(msg, "last_trade_size"),
        "volume_e2": _size(msg, "volume"),
        "open_interest_e2": _size(msg, "open_interest"),
        "ts_us": _ts_us(msg, msg.get("time")),
    }
