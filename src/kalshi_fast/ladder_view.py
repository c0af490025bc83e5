"""One market's book, as a terminal ladder, as one line, and as JSON.

Everything on the yes scale: what is bid for no at a price is offered of yes at a dollar less that. Not here:
where the book comes from (``watch``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast._decode import MAX_PRICE_E4
from kalshi_fast.terminal import bar

if TYPE_CHECKING:
    from kalshi_fast.terminal import Line

_BOTH_EDGES: Final = 34  # columns left of the bars
_FRAME_LINES: Final = 4  # head, a blank one, the spread, and one below
_STALE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class TradeSeen:
    """``price_e4`` of yes; ``taker``: which side the taker bought."""

    ts_ns: int
    price_e4: int
    count_e2: int
    taker: str


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show of a market at one moment. Levels as the book has them, best first, both bids.

    ``age_s``: since the last frame of it; None before the first.
    """

    ticker: str
    known: bool
    connected: bool
    yes: list[tuple[int, int]]
    no: list[tuple[int, int]]
    updates: int = 0
    rate_per_s: float = 0.0
    age_s: float | None = None
    trades: list[TradeSeen] = field(default_factory=list)
    trades_note: str = ""
    note: str = ""  # what has been logged
    at_ns: int = field(default_factory=time.time_ns)

    @property
    def asks(self) -> list[tuple[int, int]]:
        """Offers of yes, best first."""
        return [(MAX_PRICE_E4 - price, size) for price, size in self.no]

    @property
    def spread_e4(self) -> int | None:
        if not self.yes or not self.no:
            return None
        return MAX_PRICE_E4 - self.no[0][0] - self.yes[0][0]

    @property
    def state(self) -> str:
        """exact, unknown (until the next snapshot) or disconnected."""
        return ("exact" if self.known else "unknown") if self.connected else "disconnected"


def dollars(price_e4: int) -> str:
    """Exact, four decimals."""
    return f"{price_e4 // 10_000}.{price_e4 % 10_000:04d}"


def contracts(qty_e2: int) -> str:
    """Exact, two decimals."""
    sign, size = "-" if qty_e2 < 0 else "", abs(qty_e2)
    return f"{sign}{size // 100:,}.{size % 100:02d}"


def screen(view: View, columns: int, rows: int) -> list[Line]:
    """The ladder, as large as there is room for."""
    trades = view.trades[: max(0, min(5, rows - 14))]
    below = len(trades) + 2 if trades or view.trades_note else 0
    levels = max(1, (rows - _FRAME_LINES - below) // 2)
    asks, bids = view.asks[:levels], view.yes[:levels]
    most = max((size for _, size in [*asks, *bids]), default=1)
    width = max(5, columns - _BOTH_EDGES)
    lines: list[Line] = [_head(view), [(view.note, "warn")]]
    lines += [_level("ask", "bad", price, size, most, width) for price, size in reversed(asks)]
    lines.append(_middle(view))
    lines += [_level("bid", "good", price, size, most, width) for price, size in bids]
    if below:
        lines.append([])
        lines.append([("last trades", "bold"), (f"  {view.trades_note}" if view.trades_note else "", "dim")])
        lines += [
            [
                (f"  {_clock(trade.ts_ns)}  ", "dim"),
                (f"{dollars(trade.price_e4)}{contracts(trade.count_e2):>14}", ""),
                (f"  {trade.taker} taker", "good" if trade.taker == "yes" else "bad"),
            ]
            for trade in trades
        ]
    return lines


def _head(view: View) -> Line:
    style = "good" if view.state == "exact" else "bad"
    age = "no frame yet" if view.age_s is None else f"last frame {view.age_s:.1f} s ago"
    old = view.age_s is not None and view.age_s > _STALE_S
    return [
        (view.ticker, "bold"),
        ("  ", ""),
        (view.state, style),
        (f"  {view.rate_per_s:,.1f} updates/s  ", ""),
        (age, "warn" if old else "dim"),
    ]


def _middle(view: View) -> Line:
    spread = view.spread_e4
    if spread is not None:
        return [(f"{'':6}spread {dollars(spread)}", "dim")]
    if not view.yes and not view.no:
        return [(f"{'':6}the book is empty" if view.known else f"{'':6}no book yet", "dim")]
    return [(f"{'':6}one side is empty", "dim")]


def _level(name: str, style: str, price: int, size: int, most: int, width: int) -> Line:
    return [
        (f"  {name}  ", "dim"),
        (f"{dollars(price):>8}", style),
        (f"{contracts(size):>15}   ", ""),
        (bar(size, most, width), style),
    ]


def compact(view: View) -> str:
    """One line."""
    bid = f"{dollars(view.yes[0][0])} x {contracts(view.yes[0][1])}" if view.yes else "-"
    ask = f"{dollars(view.asks[0][0])} x {contracts(view.asks[0][1])}" if view.no else "-"
    spread = "-" if view.spread_e4 is None else dollars(view.spread_e4)
    return (
        f"{_clock(view.at_ns)}  {view.ticker}  bid {bid}  ask {ask}  spread {spread}"
        f"  {view.rate_per_s:,.1f}/s  {view.state}"
    )


def as_json(view: View, levels: int) -> dict[str, Any]:
    """For programs: integers, in the units of the names, and the state in a word."""
    return {
        "market_ticker": view.ticker,
        "ts_ns": view.at_ns,
        "state": view.state,
        "updates": view.updates,
        "updates_per_s": round(view.rate_per_s, 1),
        "age_s": None if view.age_s is None else round(view.age_s, 3),
        "spread_e4": view.spread_e4,
        "yes": [{"price_e4": price, "size_e2": size} for price, size in view.yes[:levels]],
        "no": [{"price_e4": price, "size_e2": size} for price, size in view.no[:levels]],
        "trades": [
            {
                "ts_ns": trade.ts_ns,
                "price_e4": trade.price_e4,
                "count_e2": trade.count_e2,
                "taker_side": trade.taker,
            }
            for trade in view.trades
        ],
    }


def _clock(ts_ns: int) -> str:
    at = datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC)
    return f"{at:%H:%M:%S}.{ts_ns // 1_000_000 % 1000:03d}"
