"""Asks REST what the recording cannot know by itself: whether markets that are named exist, what those are
that the WebSocket does not have, and the books of those whose scale is not proven.

Each is a small question, asked when there is one; requests wait in a thread. Without REST_URL nothing is
asked, and absent markets are told by the WebSocket alone. Not here: what an answer means for a book
(``admission``), which markets are carried (``follower``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast._clock import receive_ns
from kalshi_fast._decode import price_e4, qty_e2
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.discovery import listing
from kalshi_fast.errors import FieldError, RestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from kalshi_fast.recorder import Recorder
    from kalshi_fast.rest import Rest
    from kalshi_fast.rest_bodies import RestMarket

LOOK_S: Final = 0.2
ASKED_AT_ONCE: Final = 100
BOOKS_AT_ONCE: Final = 5
UNKNOWN: Final = "REST does not know it: there is none of that name, or it was archived long ago"
AGAIN: Final = Scale(NS, 60 * NS)

log = logging.getLogger("kalshi_fast.inquiry")


class _Levels(msgspec.Struct):
    no_dollars: list[tuple[str, str]] | None = None


class _Book(msgspec.Struct):
    """``GET /markets/{ticker}/orderbook``, as far as it is looked at; a list may be null."""

    orderbook_fp: _Levels | None = None


class Inquiry:
    """``Inquiry(rest, recorder, named)``: ``named()`` are the markets that the user has named now;
    ``await run()`` until it is cancelled. ``conn_id``: its health rows are of no connection."""

    conn_id = 0

    def __init__(self, rest: Rest, recorder: Recorder, named: Callable[[], Iterable[str]]) -> None:
        self._rest = rest
        self._recorder = recorder
        self._named = named
        self._checked: set[str] = set()
        self._failures = {self._names: 0, self._books: 0}  # one that fails does not hold up the other
        self._due_s = {self._names: 0.0, self._books: 0.0}
        self._rounds = 0  # of questions for books, without a proof
        self._books_due_s = 0.0

    async def run(self) -> None:
        while not self._rest.closed:
            await asyncio.sleep(LOOK_S)
            for question in self._failures:
                if time.monotonic() >= self._due_s[question]:
                    await self._ask(question)

    async def _ask(self, question: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await question()
        except RestError as error:
            if self._rest.closed:
                return
            self._failures[question] += 1
            wait_ns = AGAIN.bound_ns(self._failures[question])
            self._due_s[question] = time.monotonic() + wait_ns / NS
            log.warning("REST cannot be asked about markets: %s; again in %d s", error, wait_ns // NS)
        else:
            self._failures[question] = 0

    # --- which there are --------------------------------------------------------------------------

    async def _names(self) -> None:
        """Those that are named and have not been asked for, and those that the WebSocket does not have."""
        named = dict.fromkeys(self._named())
        self._checked &= named.keys()
        new = [ticker for ticker in named if ticker not in self._checked]
        asked = [*self._recorder.absent.to_ask(), *new][:ASKED_AT_ONCE]
        if not asked:
            return
        found = await asyncio.to_thread(listing.named, self._rest, asked)
        absent, now_ns = self._recorder.absent, receive_ns()
        for ticker in asked:
            market = found.get(ticker)
            if market is None and not self._is_known(ticker):
                absent.say(ticker, UNKNOWN, now_ns, self)
            absent.answered(ticker, UNKNOWN if market is None else described(market), now_ns, self)
        self._checked.update(ticker for ticker in asked if ticker in named)

    def _is_known(self, ticker: str) -> bool:
        market = self._recorder.books.by_ticker.get(ticker)
        return market is not None and market.known

    # --- on which scale ---------------------------------------------------------------------------

    async def _books(self) -> None:
        held, now_s = self._recorder.held_tickers, time.monotonic()
        if not held:
            self._rounds = 0
            return
        if now_s < self._books_due_s:
            return
        first = self._rounds * BOOKS_AT_ONCE % len(held)
        self._rounds += 1
        self._books_due_s = now_s + AGAIN.bound_ns(self._rounds) / NS
        for ticker in [*held[first:], *held[:first]][:BOOKS_AT_ONCE]:
            if ticker not in self._recorder.held_tickers:
                continue
            try:
                bids = await asyncio.to_thread(no_bids, self._rest, ticker)
            except FieldError as error:
                log.warning("REST: the book of %s cannot be used: %s", ticker, error)
            else:
                self._recorder.listed(ticker, bids)


def no_bids(rest: Rest, ticker: str) -> dict[int, int]:
    """The no side of a market's book by REST, price to size; always bids on their own scale (recordings of
    REST bodies of 2026). Empty for a market that there is not. Raises RestError, FieldError."""
    try:
        book = rest.get(f"/markets/{ticker}/orderbook", {}, _Book).orderbook_fp
    except RestError as error:
        if error.status == 404:
            return {}
        raise
    levels = (book.no_dollars or []) if book is not None else []
    return {price_e4(price, "no_dollars"): qty_e2(size, "no_dollars") for price, size in levels}


def described(market: RestMarket) -> str:
    """What REST says of a market, in a sentence."""
    status = market.status or "of no status"
    if status in ("active", "open") or not market.close_time:
        return f"REST knows it, and says that it is {status}"
    return f"REST knows it, and says that it is {status}; its close_time is {market.close_time}"
