"""The price grid that a life-cycle event declares, and the books that move to it. Not here: prices that
come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_fast._book import GRIDS, Grid
from kalshi_fast._decode import price_e4
from kalshi_fast.errors import FieldError

if TYPE_CHECKING:
    from kalshi_fast.books import Books
    from kalshi_fast.channels.messages import LifecycleBody
    from kalshi_fast.losses import Losses


def declared(body: LifecycleBody, losses: Losses) -> Grid | None:
    """By ranges, else by name; None when it names none. Ranges that cannot be are lost."""
    if body.price_ranges:
        try:
            ranges = [
                (price_e4(r.start, "start"), price_e4(r.end, "end"), price_e4(r.step, "step"))
                for r in body.price_ranges
            ]
            return Grid(body.price_level_structure or "declared", ranges)
        except FieldError:
            losses.field("market_lifecycle_v2", "price_ranges")
            return None
    return GRIDS.get(body.price_level_structure or "")


def announce(books: Books, body: LifecycleBody, losses: Losses) -> None:
    """Said on another connection than the books': their frames may be ahead of it or behind, so it binds
    nobody.

    A book that has prices off the grid stays as it is, and prices off the grid widen it as before.
    """
    market = books.by_ticker.get(body.market_ticker)
    grid = declared(body, losses)
    if market is None or grid is None:
        return
    for replica in market.replicas:
        book = replica.book
        if not book.stale and all(price in grid for levels in book.ladders() for price, _ in levels):
            book.change_grid(grid)
