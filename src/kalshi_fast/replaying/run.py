"""The books of a recording, moved on step by step.

Not here: what is done with them between two steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from kalshi_fast._replay import BookTable, Rows, advance
from kalshi_fast.errors import FieldError
from kalshi_fast.replaying.times import Moment, moment_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast._book import OrderBook
    from kalshi_fast.replaying.source import Source

_NO_END: Final = 2**63 - 1


class Run:
    """``advance`` until ``done``; ``events``: how many there have been so far."""

    def __init__(self, source: Source, rows: Iterator[Rows]) -> None:
        self.table = BookTable()
        self.events = 0
        self.done = False
        self._source = source
        self._chunks = rows
        self._rows: Rows | None = None
        self._at = 0

    @property
    def books(self) -> dict[str, OrderBook]:
        """The books that are known now, by ticker. They are the run's own and go on changing."""
        books = zip(self._source.tickers, self.table.books, strict=False)
        return {ticker: book for ticker, book in books if not book.stale}

    def book(self, ticker: str) -> OrderBook | None:
        """The book of a market, None while it is unknown."""
        number = self._source.find(ticker)
        if not 0 <= number < len(self.table):
            return None
        book = self.table.books[number]
        return None if book.stale else book

    def advance(self, *, until: Moment | None = None, events: int | None = None) -> int:
        """Applies everything received until then (that moment included), or so many events, whichever comes
        first; neither: everything. Returns how many events that were."""
        until_ns = _NO_END if until is None else moment_ns("until", until)
        wanted = _NO_END if events is None else events
        if wanted < 0:
            raise FieldError("events", events, "0 or more")
        before = self.events
        while self.events - before < wanted and not self.done:
            if self._rows is None or self._at >= self._rows.n:
                self._rows, self._at = next(self._chunks, None), 0
                if self._rows is None:
                    self.done = True
                    self.close()
                    break
            left = wanted - (self.events - before)
            self._at, done = advance(self.table, self._rows, self._at, left, until_ns)
            self.events += done
            if self._at < self._rows.n and self.events - before < wanted:
                break  # what follows is of later
        return self.events - before

    def close(self) -> None:
        """Gives files and connections back."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
