"""The price grid that a market declares, by an announcement or by REST, and the books that move to it.

The ranges say it, whatever the name; a name alone is a hint; an unknown one without ranges says nothing, and
REST is asked (``streams``). A declaration binds nobody: it may be ahead of the frames or behind them, so a
book with prices off it stays as it is, and a price off it that comes widens the book's grid
(``books.Replica.fit_grid``). Not here: prices that come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kalshi_fast._book import GRIDS, Grid
from kalshi_fast._decode import price_e4
from kalshi_fast.errors import FieldError

if TYPE_CHECKING:
    from kalshi_fast.books import Books
    from kalshi_fast.channels.messages import PriceRange
    from kalshi_fast.losses import Losses

    class Declaration(Protocol):
        """An announcement, or REST's market."""

        @property
        def price_level_structure(self) -> str | None: ...

        @property
        def price_ranges(self) -> list[PriceRange] | None: ...


def declared(told: Declaration, losses: Losses, kind: str = "market_lifecycle_v2") -> Grid | None:
    """By ranges, else by name; None when neither says which prices there are. Ranges that cannot be are
    lost.
    """
    name = told.price_level_structure or ""
    if told.price_ranges:
        try:
            ranges = [
                (price_e4(r.start, "start"), price_e4(r.end, "end"), price_e4(r.step, "step"))
                for r in told.price_ranges
            ]
            return Grid(name or "declared", ranges)
        except FieldError:
            losses.field(kind, "price_ranges")
    return GRIDS.get(name)


def announce(
    books: Books, ticker: str, told: Declaration, losses: Losses, kind: str = "market_lifecycle_v2"
) -> bool:
    """A market's books move to the grid that is declared, if their prices are on it; from the next snapshot
    on they begin with it. False: a grid is declared, and which prices it has is not known.
    """
    grid = declared(told, losses, kind)
    if grid is None:
        return not told.price_level_structure
    market = books.by_ticker.get(ticker)
    if market is not None:
        market.declared_grid = grid
        for replica in market.replicas:
            book = replica.book
            if book.grid != grid and all(p in grid for levels in book.ladders() for p, _ in levels):
                book.change_grid(grid)
    return True
