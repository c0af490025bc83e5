"""What the frames of a capture say: books and rows, read with json and Decimal and nothing of the recorder.

The demo compares both stores with it. A frame of which it can make nothing is counted as unreadable; its
number counts all the same. Not here: which frames there are (``captured``).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kalshi_fast.config import REFERENCE_CHANNELS
from kalshi_fast.scale import told_by_book
from kalshi_fast.simulator.subscription import BOOKS, LIFECYCLE, MULTIVARIATE, TICKER, TRADE

if TYPE_CHECKING:
    from kalshi_fast.simulator.captured import Capture, Connection, Frame

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_SIDES: Final = ("yes", "no")
Sides: TypeAlias = tuple[dict[int, int], dict[int, int]]
# type, ticker, sid, seq, side, price_e4, qty_e2, ts_us (-1: the time of receipt)
BookRow: TypeAlias = tuple[str, str, int, int, str, int, int, int]


class _UnreadableError(Exception):
    """A frame that says nothing that could be stored."""


@dataclass(slots=True)
class Truth:
    """``books``: those that are known at the end. ``unknown``: the markets whose book is not."""

    books: dict[str, Sides] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    book_rows: Counter[BookRow] = field(default_factory=Counter)
    trades: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # by id
    tickers: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    announcements: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    reference: dict[tuple[Any, ...], None] = field(default_factory=dict)  # each value once
    raw: Counter[str] = field(default_factory=Counter)  # frames of other channels
    gaps: int = 0
    repeated: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)  # frames, by type

    @property
    def deltas(self) -> int:
        return sum(count for row, count in self.book_rows.items() if row[0] == "delta")


def truth(capture: Capture, *, on_yes_scale: bool) -> Truth:
    """Of the whole capture, connection after connection."""
    found = Truth()
    for connection in capture.books:
        _Books(found, on_yes_scale=on_yes_scale).play(connection)
    for connection in capture.beside:
        _play_beside(found, connection)
    return found


def scale(capture: Capture, told: bool | None) -> tuple[bool, str]:
    """Whether the no side is on the yes scale, and who says so: whoever asks, the file, or its snapshots."""
    if told is None:
        told = capture.told_scale
    if told is not None:
        return told, "as told"
    words = [
        word
        for frame in capture.all_frames()
        if (levels := _snapshot_levels(frame)) is not None and (word := told_by_book(*levels)) is not None
    ]
    on_yes = sum(words)
    if not words:
        return False, "nothing in it says so: --use-yes-price takes it for the other one"
    most = max(on_yes, len(words) - on_yes)
    return on_yes > len(words) - on_yes, f"{most} of {len(words)} snapshots that can tell say so"


def _snapshot_levels(frame: Frame) -> tuple[list[tuple[int, int]], list[tuple[int, int]]] | None:
    """The levels of a snapshot as they are told, None for what is none."""
    if frame.message["type"] != "orderbook_snapshot":
        return None
    try:
        sides = _levels(frame.message["msg"], on_yes_scale=False)
    except (_UnreadableError, KeyError, TypeError):
        return None
    return list(sides[0].items()), list(sides[1].items())


class _Numbers:
    """The sequences of one connection."""

    def __init__(self, found: Truth) -> None:
        self._found = found
        self._next: dict[int, int] = {}

    def verdict(self, frame: Frame) -> str:
        """ "next", "gap" or "repeated"; a frame without a number is the next."""
        if frame.number is None:
            return "next"
        sid, seq = frame.number
        expected = self._next.get(sid, 1)
        if seq < expected:
            self._found.repeated += 1
            return "repeated"
        self._next[sid] = seq + 1
        if seq > expected:
            self._found.gaps += 1
            return "gap"
        return "next"


class _Books:
    """The books of one connection."""

    def __init__(self, found: Truth, *, on_yes_scale: bool) -> None:
        self._found = found
        self._scale = on_yes_scale
        self._numbers = _Numbers(found)
        found.unknown |= found.books.keys()  # a new connection: until each has had its snapshot
        found.books.clear()

    def play(self, connection: Connection) -> None:
        for frame in connection.frames:
            verdict = self._numbers.verdict(frame)
            if verdict == "repeated":
                continue
            if verdict == "gap":
                self._lose(set(self._found.books))
            if frame.channel != BOOKS or frame.message["type"] not in (
                "orderbook_snapshot",
                "orderbook_delta",
            ):
                continue
            body = frame.message.get("msg")
            ticker = body.get("market_ticker") if isinstance(body, dict) else None
            try:
                if not isinstance(ticker, str) or not ticker or frame.number is None:
                    raise _UnreadableError
                self._take(frame, ticker, *frame.number)
            except (_UnreadableError, KeyError, TypeError):
                self._found.unreadable[frame.message["type"]] += 1
                self._lose({ticker} if isinstance(ticker, str) and ticker else set(self._found.books))

    def _lose(self, tickers: set[str]) -> None:
        for ticker in tickers:
            self._found.books.pop(ticker, None)
        self._found.unknown |= tickers

    def _take(self, frame: Frame, ticker: str, sid: int, seq: int) -> None:
        found, body = self._found, frame.message["msg"]
        if frame.message["type"] == "orderbook_snapshot":
            sides = _levels(body, on_yes_scale=self._scale)
            found.books[ticker] = sides
            found.unknown.discard(ticker)
            found.book_rows["clear", ticker, sid, seq, "yes", 0, 0, -1] += 1
            for name, levels in zip(_SIDES, sides, strict=True):
                for level in levels.items():
                    found.book_rows["snapshot", ticker, sid, seq, name, *level, -1] += 1
            return
        side = body["side"]
        if side not in _SIDES:
            raise _UnreadableError
        price = _price(body, "price")
        change = _size(body, "delta")
        if price is None or change is None:
            raise _UnreadableError
        if self._scale and side == "no":
            price = 10_000 - price
        book = found.books.get(ticker)
        if book is not None:
            levels = book[_SIDES.index(side)]
            size = levels.get(price, 0) + change
            if size < 0:
                raise _UnreadableError
            levels[price] = size
            if not size:
                del levels[price]
        else:
            found.unknown.add(ticker)
        found.book_rows["delta", ticker, sid, seq, side, price, change, _ts_us(body, body.get("ts"))] += 1


def _play_beside(found: Truth, connection: Connection) -> None:
    numbers = _Numbers(found)
    for frame in connection.frames:
        if numbers.verdict(frame) == "repeated" or frame.message["type"] in ("ok", "unsubscribed", "error"):
            continue
        body = frame.message.get("msg")
        try:
            if not isinstance(body, dict):
                raise _UnreadableError
            if frame.channel == TRADE:
                _take_trade(found, frame, body)
            elif frame.channel == TICKER:
                _take_ticker(found, body)
            elif frame.channel in (LIFECYCLE, MULTIVARIATE):
                _take_announcement(found, frame, body)
            elif frame.channel in REFERENCE_CHANNELS:
                if (
                    "indexlist" not in frame.message["type"]
                    and "underlying_list" not in frame.message["type"]
                ):
                    _take_reference(found, str(frame.channel), body)
            else:
                found.raw[str(frame.channel)] += 1
        except (_UnreadableError, KeyError, TypeError, ValueError, InvalidOperation):
            found.unreadable[frame.message["type"]] += 1


def _take_trade(found: Truth, frame: Frame, body: dict[str, Any]) -> None:
    yes, size = _price(body, "yes_price"), _size(body, "count")
    if yes is None and (no := _price(body, "no_price")) is not None:
        yes = 10_000 - no
    side = body.get("taker_outcome_side") or body.get("taker_side")
    trade_id, ticker = body["trade_id"], body["market_ticker"]
    if yes is None or size is None or size <= 0 or side not in _SIDES or frame.number is None:
        raise _UnreadableError
    found.trades.setdefault(trade_id, (ticker, side, yes, size, _ts_us(body, None)))


def _take_ticker(found: Truth, body: dict[str, Any]) -> None:
    values = (_price(body, name) for name in ("price", "yes_bid", "yes_ask"))
    found.tickers[body["market_ticker"], *values, _size(body, "volume"), _ts_us(body, body.get("time"))] += 1


def _take_announcement(found: Truth, frame: Frame, body: dict[str, Any]) -> None:
    kind = body.get("event_type", frame.message["type"])
    found.announcements[kind, body.get("market_ticker", ""), plain(body)] += 1


def _take_reference(found: Truth, channel: str, body: dict[str, Any]) -> None:
    """The clean form only: ``data`` is the source's own frame, as text."""
    upstream = json.loads(body["data"]) if "data" in body else {}
    name = body.get("index_id") or body["underlying_ticker"]
    value = Decimal(body["value_usd"] if "value_usd" in body else upstream["value"])
    average = body.get("avg_60s_data") or {}
    mean = Decimal(average["value"]) if "value" in average else None
    at_ms = body["source_ts_ms"] if "source_ts_ms" in body else upstream["time"]
    found.reference[channel, name, value, mean, average.get("window_size"), at_ms * 1000] = None


def plain(body: object) -> str:
    """JSON by which two bodies of the same content are the same text."""
    return json.dumps(body, sort_keys=True)


# --- values -----------------------------------------------------------------------------------------------


def _levels(body: dict[str, Any], *, on_yes_scale: bool) -> Sides:
    sides: list[dict[int, int]] = []
    for name in _SIDES:
        fixed, cents = body.get(f"{name}_dollars_fp"), body.get(name)
        levels = [(_whole(p, 10_000), _whole(q, 100)) for p, q in fixed or ()]
        if fixed is None:
            levels = [(_whole(p, 100), _whole(q, 100)) for p, q in cents or ()]
        if on_yes_scale and name == "no":
            levels = [(10_000 - price, size) for price, size in levels]
        sides.append({price: size for price, size in levels if size})
    return sides[0], sides[1]


def _price(body: dict[str, Any], name: str) -> int | None:
    """In 1/10,000 dollar: of the fixed-point field, else of the cents; empty is no value."""
    if body.get(f"{name}_dollars") not in (None, ""):
        return _whole(body[f"{name}_dollars"], 10_000)
    if body.get(f"{name}_dollars") == "":
        return None
    return None if body.get(name) is None else _whole(body[name], 100)


def _size(body: dict[str, Any], name: str) -> int | None:
    if body.get(f"{name}_fp") not in (None, ""):
        return _whole(body[f"{name}_fp"], 100)
    return None if body.get(name) is None else _whole(body[name], 100)


def _whole(text: object, times: int) -> int:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise _UnreadableError
    try:
        value = Decimal(str(text)) * times
        if value != value.to_integral_value():
            raise _UnreadableError
        return int(value)
    except (InvalidOperation, OverflowError, ValueError):
        raise _UnreadableError from None


def _ts_us(body: dict[str, Any], text: object) -> int:
    """``ts_ms``, or whole seconds in ``ts``, with the microseconds of the text where both name the same time;
    -1: the time of receipt."""
    exact = _text_us(text)
    for name, unit_us in (("ts_ms", 1000), ("ts", 1_000_000)):
        value = body.get(name)
        if type(value) is int:
            return exact if exact is not None and exact // unit_us == value else value * unit_us
    return -1 if exact is None else exact


def _text_us(text: object) -> int | None:
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    moment = datetime.fromisoformat(f"{match[1]}+00:00")
    return (moment - _EPOCH) // timedelta(microseconds=1) + int((match[2] or "")[:6].ljust(6, "0"))
