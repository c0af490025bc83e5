"""kalshi-fast: exact order books of the Kalshi exchange, recorded and replayed.

>>> from kalshi_fast import OrderBook, YES
>>> book = OrderBook()
>>> book.apply_snapshot(yes=[(4500, 30_000)], no=[(5300, 12_050)])
>>> book.best_bid(YES), book.best_ask(YES), book.apply_delta(YES, 4500, -50)
(4500, 4700, 29950)

Prices are ``price_e4`` (1/10,000 dollar), sizes ``qty_e2`` (1/100 contract), always integers.

A name is imported when it is first asked for: ``import kalshi_fast`` alone costs next to nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from kalshi_fast.batch import RawFrame
    from kalshi_fast.channels.reference_rows import ReferenceRow
    from kalshi_fast.channels.rows import LifecycleRow, TickerRow, TradeRow
    from kalshi_fast.errors import BookError, KalshiFastError
    from kalshi_fast.replaying.replay import Replay, replay
    from kalshi_fast.strategy import Strategy

    __version__: str

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
    "LifecycleRow",
    "OrderBook",
    "RawFrame",
    "ReferenceRow",
    "Replay",
    "Strategy",
    "TickerRow",
    "TradeRow",
    "__version__",
    "replay",
]

if not TYPE_CHECKING:  # a type checker has to find the names above, and no others
    _MODULES = {
        "BookError": "errors",
        "KalshiFastError": "errors",
        "LifecycleRow": "channels.rows",
        "RawFrame": "batch",
        "ReferenceRow": "channels.reference_rows",
        "Replay": "replaying.replay",
        "Strategy": "strategy",
        "TickerRow": "channels.rows",
        "TradeRow": "channels.rows",
        "replay": "replaying.replay",
    }  # of the others it is the book's

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":
            value: object = import_module("importlib.metadata").version("kalshi-fast")
        else:
            value = getattr(import_module(f"kalshi_fast.{_MODULES.get(name, '_book')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
