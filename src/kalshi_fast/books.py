"""The set of order books, one per market, and the numbering of markets that rows refer to.

A book belongs to a market, never to a subscription: one sid carries many markets (Kalshi's AsyncAPI
document; recorders that keep one book per sid lose the market from the second one on). Not here:
sequences (``session``), rows (``recorder``).
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from kalshi_fast._book import DECI_CENT, FINEST, LINEAR_CENT, NO, TAPERED_DECI_CENT, YES, Grid, OrderBook
from kalshi_fast.errors import FrameError

MAX_MARKETS: Final = 1_000_000
NIL_ID: Final = str(uuid.UUID(int=0))

_TICKER = re.compile(r"[A-Z0-9.-]{1,128}\Z")
_COARSE_TO_FINE = (LINEAR_CENT, TAPERED_DECI_CENT, DECI_CENT, FINEST)


class Market:
    """One market: its names, its number, its book, and the subscription that last carried it.

    ``known``: the rows written so far say what the book is (a clear without a gap after it).
    ``resyncing``: a fresh snapshot has been asked for and has not come yet.
    """

    __slots__ = ("book", "grid_declared", "ix", "known", "market_id", "resyncing", "sid", "ticker")

    def __init__(self, ticker: str, market_id: str, ix: int) -> None:
        self.ticker = ticker
        self.market_id = market_id
        self.ix = ix
        self.sid = 0
        self.book = OrderBook(stale=True)
        self.grid_declared = False
        self.known = False
        self.resyncing = False

    def declare_grid(self, grid: Grid) -> None:
        """The exchange has said which prices the market uses. Raises PriceOffGridError (book stale)."""
        self.grid_declared = True
        self.book.change_grid(grid)

    def fit_grid(self, price_e4: int) -> None:
        """As long as nobody has declared the grid, the prices themselves do: widen it to this one."""
        if self.grid_declared or price_e4 in self.book.grid:
            return
        resting = [price for side in (YES, NO) for price in self.book.ladder(side)[0].tolist()]
        self.book.change_grid(
            next(grid for grid in _COARSE_TO_FINE if all(price in grid for price in (price_e4, *resting)))
        )


class Books:
    """All markets seen, by ticker. ``tickers`` and ``ids`` only ever grow: entry ``ix`` never changes."""

    def __init__(self) -> None:
        self.by_ticker: dict[str, Market] = {}
        self.tickers: list[str] = []
        self.ids: list[str] = []

    def market(self, ticker: str, market_id: str) -> Market:
        """The market of a book frame, made on first sight (``market_id`` may be empty: not known).

        A market whose id becomes known, or changes, gets a new number and keeps its book. Raises
        FrameError when ticker or id are not what the exchange promises.
        """
        market = self.by_ticker.get(ticker)
        if market is not None and (not market_id or market.market_id == market_id):
            return market
        if not _TICKER.match(ticker):
            raise FrameError("market_ticker", ticker, "1 to 128 of A-Z, 0-9, '.' and '-'")
        if len(self.tickers) >= MAX_MARKETS:
            raise FrameError("market_ticker", ticker, f"no more than {MAX_MARKETS} markets in one process")
        ix = len(self.tickers)
        self.ids.append(_canonical_id(market_id))
        self.tickers.append(ticker)
        if market is None:
            market = self.by_ticker[ticker] = Market(ticker, market_id, ix)
        else:
            market.market_id, market.ix = market_id, ix
        return market

    def of_sid(self, sid: int) -> list[Market]:
        """The markets that this subscription carries."""
        return [market for market in self.by_ticker.values() if market.sid == sid]


def _canonical_id(market_id: str) -> str:
    if not market_id:
        return NIL_ID
    try:
        return str(uuid.UUID(market_id))
    except ValueError:
        raise FrameError("market_id", market_id, "a UUID") from None
