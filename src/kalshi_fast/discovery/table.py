"""Markets for people and programs: a table, one ticker a line, or JSON. Sorted by volume.

Words search names and titles, whatever their case. Not here: asking for markets (``listing``).
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.discovery.selection import volume_24h_e2, volume_e2
from kalshi_fast.rest_bodies import series_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kalshi_fast.rest_bodies import RestMarket

_LEAST_TITLE_CHARS: Final = 20


def search(markets: Iterable[RestMarket], words: Sequence[str]) -> list[RestMarket]:
    """Those in whose names and titles every word stands, the largest volume first."""
    wanted = [word.casefold() for word in words]
    found = [market for market in markets if all(word in _text(market) for word in wanted)]
    return sorted(found, key=lambda market: (-volume_e2(market), market.ticker))


def _text(market: RestMarket) -> str:
    named = (market.ticker, market.event_ticker, market.title, market.yes_sub_title, market.subtitle)
    return " ".join(filter(None, named)).casefold()


def as_tickers(markets: Iterable[RestMarket]) -> str:
    """One name a line: what MARKET_TICKERS_FILE reads."""
    return "".join(f"{market.ticker}\n" for market in markets)


def as_json(markets: Iterable[RestMarket]) -> str:
    """One list of objects, one object a line."""
    rows = ",\n".join(json.dumps(_fields(market)) for market in markets)
    return f"[\n{rows}\n]\n" if rows else "[]\n"


def _fields(market: RestMarket) -> dict[str, Any]:
    return {
        "ticker": market.ticker,
        "event_ticker": market.event_ticker,
        "series_ticker": series_of(market),
        "title": market.title,
        "subtitle": market.yes_sub_title or market.subtitle,
        "status": market.status,
        "volume": _contracts(volume_e2(market)),
        "volume_24h": _contracts(volume_24h_e2(market)),
        "yes_bid_dollars": market.yes_bid_dollars,
        "yes_ask_dollars": market.yes_ask_dollars,
        "open_time": market.open_time,
        "close_time": market.close_time,
        "price_level_structure": market.price_level_structure,
        "result": market.result,
    }


def as_table(markets: Sequence[RestMarket], most: int | None, width: int | None = None) -> str:
    """With heads, at most so many rows, no wider than the terminal; what is left out is said."""
    heads = ("TICKER", "STATUS", "VOLUME", "24 H", "BID", "ASK", "CLOSES", "TITLE")
    rows = [_row(market) for market in (markets if most is None else markets[:most])]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    room = (width or shutil.get_terminal_size((140, 24)).columns) - sum(widths[:-1]) - 2 * (len(heads) - 1)
    widths[-1] = min(widths[-1], max(room, _LEAST_TITLE_CHARS))
    lines = [_line(row, widths) for row in (heads, *rows)]
    if len(rows) < len(markets):
        lines.append(f"… and {len(markets) - len(rows):,} more (--limit, --format tickers)")
    return "".join(f"{line}\n" for line in lines)


def _row(market: RestMarket) -> tuple[str, ...]:
    title = " · ".join(filter(None, (market.title, market.yes_sub_title or market.subtitle)))
    return (
        market.ticker,
        _plain(market.status),
        f"{volume_e2(market) // 100:,}",
        f"{volume_24h_e2(market) // 100:,}",
        _plain(market.yes_bid_dollars) or "-",
        _plain(market.yes_ask_dollars) or "-",
        _plain(market.close_time)[:16].replace("T", " "),
        _plain(title),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        text.rjust(width) if column in (2, 3, 4, 5) else _cut(text, width).ljust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _plain(text: str | None) -> str:
    """What comes from outside must not move the cursor."""
    return "".join(char if char.isprintable() else " " for char in text or "")


def _contracts(qty_e2: int) -> str:
    return f"{qty_e2 // 100}.{qty_e2 % 100:02d}"
