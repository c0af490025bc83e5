"""kalshi-fast: exact order books of the Kalshi exchange, recorded and replayed.

>>> from kalshi_fast import OrderBook, YES
>>> book = OrderBook()
>>> book.apply_snapshot(yes=[(4500, 30_000)], no=[(5300, 12_050)])
>>> book.best_bid(YES), book.best_ask(YES), book.apply_delta(YES, 4500, -50)
(4500, 4700, 29950)

Prices are ``price_e4`` (1/10,000 dollar), sizes ``qty_e2`` (1/100 contract), always integers.
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from kalshi_fast._book import (
    DECI_CENT,
    FINEST,
    GRIDS,
    LINEAR_CENT,
    NO,
    TAPERED_DECI_CENT,
    YES,
    Grid,
    OrderBook,
)
from kalshi_fast.errors import BookError, KalshiFastError

if TYPE_CHECKING:
    from kalshi_fast.replaying.replay import Replay, replay
    from kalshi_fast.strategy import Strategy

__version__ = _version("kalshi-fast")
__all__ = [
    "DECI_CENT",
    "FINEST",
    "GRIDS",
    "LINEAR_CENT",
    "NO",
    "TAPERED_DECI_CENT",
    "YES",
    "BookError",
    "Grid",
    "KalshiFastError",
    "OrderBook",
    "Replay",
    "Strategy",
    "__version__",
    "replay",
]
_LAZY = {
    "Replay": "kalshi_fast.replaying.replay",
    "Strategy": "kalshi_fast.strategy",
    "replay": "kalshi_fast.replaying.replay",
}


def __getattr__(name: str) -> object:
    """Arrow is imported by those who replay, not by those who want a book."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
