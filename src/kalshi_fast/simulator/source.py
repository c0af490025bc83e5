"""What the exchange plays: markets with true books, and one change after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from kalshi_fast.simulator.frames import delta_body, snapshot_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kalshi_fast.simulator.frames import Form, TrueBook

SNAPSHOT = b"orderbook_snapshot"
DELTA = b"orderbook_delta"


class Change(NamedTuple):
    """One book frame to send: its market, its type and the JSON of its ``msg``.

    ``level`` is what a delta changed (side, price_e4, delta_e2, the JSON of its times), for those who want
    it told differently.
    """

    ticker: str
    type: bytes
    body: bytes
    level: tuple[int, int, int, bytes] | None = None


class Source(Protocol):
    """``books`` is the truth after the last ``step``; a step applies one change and tells it."""

    @property
    def books(self) -> Mapping[str, TrueBook]: ...

    @property
    def form(self) -> Form: ...

    @property
    def structures(self) -> Mapping[str, str]:
        """The price structure of each market."""
        ...

    @property
    def next_at_s(self) -> float:
        """When the next change happened, in recorded seconds from the first; 0 for what has no times."""
        ...

    def step(self, now_ns: int) -> Change | None:
        """The next change, None when the play is over."""
        ...

    def restructure(self, ticker: str, structure: str) -> None:
        """From now on the market has this (finer) price structure."""
        ...


def delta(book: TrueBook, side: int, price_e4: int, delta_e2: int, times: bytes, form: Form) -> Change:
    """Applies the change to the book and tells it."""
    book.change(side, price_e4, delta_e2)
    body = delta_body(book, side, price_e4, delta_e2, times, form)
    return Change(book.ticker, DELTA, body, (side, price_e4, delta_e2, times))


def on_yes_scale(change: Change, book: TrueBook, form: Form) -> Change:
    """The same change for a subscription with ``use_yes_price``; the book stands right after the change."""
    if change.level is None:
        return change._replace(body=snapshot_body(book, form, yes_scale=True))
    side, price_e4, delta_e2, times = change.level
    if side == 0:
        return change
    return change._replace(body=delta_body(book, side, 10_000 - price_e4, delta_e2, times, form))
