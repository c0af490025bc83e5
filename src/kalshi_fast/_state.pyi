from typing import Final

from kalshi_fast._book import OrderBook

class Sequence:
    next_seq: int
    ended: bool
    def __init__(self, *args: object, **kwargs: object) -> None: ...

class BookState:
    @property
    def book(self) -> OrderBook: ...
    @book.setter
    def book(self, book: OrderBook) -> None: ...
    active: bool
    subscription: Sequence | None
    ix: Final[int]
    id_ix: Final[int]
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def name(self, ix: int, id_ix: int, ticker: str, market_id: str) -> None: ...
