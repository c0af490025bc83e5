"""The set of order books, one per market, and the numbering of markets that rows refer to.

A book belongs to a market, never to a subscription: one sid carries many markets (Kalshi's AsyncAPI
document; recorders that keep one book per sid lose the market from the second one on). A market has one
book per connection that carries it: one usually, two with a hot standby. Not here: sequences (``session``),
rows (``recorder``).
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from kalshi_fast._book import COARSE_TO_FINE, Grid, OrderBook
from kalshi_fast._state import BookState
from kalshi_fast.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.link import Link

MAX_MARKETS: Final = 1_000_000
MAX_IDS: Final = 2 * MAX_MARKETS  # a market may get another id; the shared memory has room for so many
HANDOVER_NS: Final = 1000  # rows of a book that has just gone over to another connection are no further ahead
NIL_ID: Final = str(uuid.UUID(int=0))

_TICKER = re.compile(r"[A-Z0-9.-]{1,128}\Z")


class Replica(BookState):
    """A market's book as one connection has it. ``active``: it is the one that rows are written of.

    ``subscription``: the one whose snapshot made the book exact; meaningless while the book is stale.
    ``active_since_ns``: when rows began to be written of it, if it took over from another one.
    """

    __slots__ = ("active_since_ns", "link", "market")

    def __init__(self, market: Market, link: Link) -> None:
        self.market = market
        self.link = link
        self.active_since_ns = 0
        self.active = not market.replicas
        market.replicas.append(self)
        self.name(market.ix, market.id_ix, market.ticker, market.market_id)

    def book_for_snapshot(self) -> OrderBook:
        """The book that a snapshot is to fill: this one, or one on the grid that has been declared since."""
        declared = self.market.declared_grid
        if declared is None or self.book.grid == declared:
            return self.book
        return OrderBook(declared, stale=True)

    def fit_grid(self, book: OrderBook, price_e4: int) -> bool:
        """Prices that come are right, whatever grid was declared: it widens to this one. True: that was off a
        declared grid."""
        if price_e4 in book.grid:
            return False
        resting = [price for levels in book.ladders() for price, _ in levels]
        book.change_grid(
            next(grid for grid in COARSE_TO_FINE if all(price in grid for price in (price_e4, *resting)))
        )
        return self.market.declared_grid is not None


class Market:
    """One market: its names, their numbers, and its book on each connection that carries it.

    ``known``: the rows written so far say what the book is (a clear without a gap after it).
    """

    __slots__ = ("declared_grid", "id_ix", "ix", "known", "market_id", "replicas", "ticker")

    def __init__(self, ticker: str, ix: int) -> None:
        self.ticker = ticker
        self.ix = ix
        self.market_id = ""  # as the exchange last wrote it
        self.id_ix = 0
        self.replicas: list[Replica] = []
        self.declared_grid: Grid | None = None
        self.known = False

    @property
    def active(self) -> Replica:
        """The replica that rows are written of."""
        return next(replica for replica in self.replicas if replica.active)

    @property
    def book(self) -> OrderBook:
        """The book as the rows have it."""
        return self.active.book

    def activate(self, replica: Replica) -> None:
        """From now on rows are written of this replica."""
        for other in self.replicas:
            other.active = other is replica


class Books:
    """All markets seen, by ticker.

    ``tickers`` and ``ids`` hold each value once and only ever grow: what stands at a number never changes.
    The books of markets that are not recorded any more are let go with ``forget``.
    """

    def __init__(self) -> None:
        self.by_ticker: dict[str, Market] = {}
        self.tickers: list[str] = []
        self.ids: list[str] = [NIL_ID]
        self._id_numbers = {NIL_ID: 0}
        self._numbers: dict[str, int] = {}

    def market(self, ticker: str, market_id: str) -> Market:
        """The market of this name, made on first sight (``market_id`` may be empty: not known).

        Raises FrameError when ticker or id are not what the exchange promises.
        """
        market = self.by_ticker.get(ticker)
        if market_id and (market is None or market.market_id != market_id):
            id_ix = self._id_number(market_id)  # before a market is made that an error would leave behind
            market = market or self._new(ticker)
            market.id_ix = id_ix
            market.market_id = market_id
            for replica in market.replicas:
                replica.name(market.ix, market.id_ix, ticker, market_id)
        return market or self._new(ticker)

    def _new(self, ticker: str) -> Market:
        if not _TICKER.match(ticker):
            raise FrameError("market_ticker", ticker, "1 to 128 of A-Z, 0-9, '.' and '-'")
        number = self._numbers.get(ticker)
        if number is None:
            if len(self.tickers) >= MAX_MARKETS:
                raise FrameError(
                    "market_ticker", ticker, f"no more than {MAX_MARKETS} markets in one process"
                )
            number = self._numbers[ticker] = len(self.tickers)
            self.tickers.append(ticker)
        market = self.by_ticker[ticker] = Market(ticker, number)
        return market

    def forget(self, tickers: Iterable[str]) -> None:
        """Lets go of the books of these markets; their names and numbers stay."""
        for ticker in tickers:
            self.by_ticker.pop(ticker, None)

    def _id_number(self, market_id: str) -> int:
        try:
            canonical = str(uuid.UUID(market_id))
        except ValueError:
            raise FrameError("market_id", market_id, "a UUID") from None
        number = self._id_numbers.get(canonical)
        if number is None:
            if len(self.ids) >= MAX_IDS:
                raise FrameError("market_id", market_id, f"no more than {MAX_IDS} ids in one process")
            number = self._id_numbers[canonical] = len(self.ids)
            self.ids.append(canonical)
        return number
