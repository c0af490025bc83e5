"""Invented markets: books around a wandering mid price, fractional sizes, all three price structures.

Deterministic from the seed, apart from the times in the frames.
"""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING

from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.frames import Form, TrueBook, old_times, times
from kalshi_fast.simulator.grids import OF_COMBINATIONS, STRUCTURES, prices
from kalshi_fast.simulator.source import Change, delta

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MARKETS = 100_000
COMBINATIONS = "KXMVESIM"  # the series of the combinations
_LEVELS_AT_START = 12
_PENNY_SIZE_E2 = 1_000_000  # of a bid at the lowest price of each side, as recorded books have them


class _Market:
    __slots__ = ("book", "leaving", "mid", "prices", "wide")

    def __init__(self, book: TrueBook, prices: list[int], rng: random.Random) -> None:
        self.book = book
        self.take_prices(prices)
        self.mid = rng.randrange(len(prices) // 5, 4 * len(prices) // 5)
        self.leaving: list[tuple[int, int]] = []  # levels that the mid has passed: they go next

    def take_prices(self, prices: list[int]) -> None:
        self.prices = prices
        self.wide = 3 if len(prices) < 200 else 12

    def refine(self, prices: list[int]) -> None:
        """The mid stays where it is, on a grid that has more prices."""
        self.mid = prices.index(self.prices[self.mid])
        self.take_prices(prices)

    def bid(self, side: int, below: int) -> int:
        """The price ``below`` ticks away from the mid, on either side's own scale."""
        at = self.mid - 1 - below if side == 0 else len(self.prices) - 2 - self.mid - below
        return self.prices[max(0, min(at, len(self.prices) - 1))]


class SyntheticMarkets:
    """A :class:`Source` without an end. Raises SimulatorError for an impossible number of markets."""

    form: Form = "current"
    next_at_s = 0.0

    def __init__(self, n_markets: int, seed: int, combos: int = 0, *, old_frames: bool = False) -> None:
        if not 1 <= n_markets <= MAX_MARKETS:
            raise SimulatorError(f"--markets: expected 1 to {MAX_MARKETS}, got {n_markets}")
        if not 0 <= combos <= MAX_MARKETS:
            raise SimulatorError(f"--combos: expected 0 to {MAX_MARKETS}, got {combos}")
        self._rng = rng = random.Random(seed)  # noqa: S311 - a simulation
        self.books: dict[str, TrueBook] = {}
        self.structures: dict[str, str] = {}
        self.playing: dict[str, None] = {}
        self.legs: dict[
            str, tuple[tuple[str, str, str], ...]
        ] = {}  # of the combinations: event, market, side
        self._markets: list[_Market] = []
        self._by_ticker: dict[str, _Market] = {}
        self._times = old_times if old_frames else times
        for number in range(n_markets):
            ticker = f"KXSIM-26DEC31-T{number:04d}"
            market = self.add_market(ticker, STRUCTURES[number % len(STRUCTURES)], rng)
            for side in (0, 1):
                for below in range(_LEVELS_AT_START):
                    market.book.sides[side][market.bid(side, below)] = rng.randrange(100, 5_000_000)
                market.book.sides[side].setdefault(market.prices[0], _PENNY_SIZE_E2)
            self.start(ticker)
        self._combine(combos, random.Random(f"{seed} combinations"))  # noqa: S311 - a simulation

    def _combine(self, combos: int, rng: random.Random) -> None:
        """Combinations of these markets: nothing happens in them, and most have one order, as recorded
        ones.
        """
        tickers = list(self.books)
        for number in range(combos):
            chosen = rng.sample(tickers, min(len(tickers), rng.randrange(2, 7)))
            event = f"{COMBINATIONS}-S2026{rng.getrandbits(44):011X}"
            ticker = f"{event}-{rng.getrandbits(44):011X}"
            self.legs[ticker] = tuple(
                (leg.rpartition("-")[0], leg, rng.choice(("yes", "no"))) for leg in sorted(chosen)
            )
            book = TrueBook(ticker, str(uuid.UUID(int=rng.getrandbits(128), version=4)))
            if number % 4:
                book.sides[1][rng.randrange(500, 990) * 10] = rng.randrange(10, 500) * 100
            self.books[ticker] = book
            self.structures[ticker] = OF_COMBINATIONS

    def add_market(self, ticker: str, structure: str, rng: random.Random) -> _Market:
        """A market that has no orders, and does not change yet."""
        book = self.books[ticker] = TrueBook(ticker, str(uuid.UUID(int=rng.getrandbits(128), version=4)))
        self.structures[ticker] = structure
        market = self._by_ticker[ticker] = _Market(book, prices(structure), rng)
        return market

    def opening(self, ticker: str, now_ns: int) -> Iterator[Change]:
        """The orders with which a market opens, one by one."""
        market = self._by_ticker[ticker]
        for side in (0, 1):
            for below in range(_LEVELS_AT_START):
                size = self._rng.randrange(100, 5_000_000)
                yield delta(
                    market.book, side, market.bid(side, below), size, self._times(now_ns // 1000), self.form
                )

    def start(self, ticker: str) -> None:
        """It changes from now on."""
        self.playing[ticker] = None
        self._markets.append(self._by_ticker[ticker])

    def stop(self, ticker: str) -> None:
        """Its book stays as it is from now on."""
        del self.playing[ticker]
        self._markets.remove(self._by_ticker[ticker])

    def step(self, now_ns: int) -> Change:
        rng = self._rng
        # The square makes some markets much busier than others.
        market = self._markets[int(rng.random() ** 2 * len(self._markets))]
        side, price, change = self._change(market, rng)
        return delta(market.book, side, price, change, self._times(now_ns // 1000), self.form)

    def restructure(self, ticker: str, structure: str) -> None:
        self.structures[ticker] = structure
        self._by_ticker[ticker].refine(prices(structure))

    def _change(self, market: _Market, rng: random.Random) -> tuple[int, int, int]:
        while market.leaving:
            side, price = market.leaving.pop()
            if size := market.book.sides[side].get(price):
                return side, price, -size
        if rng.random() < 0.01:
            self._move(market, 1 if rng.random() < 0.5 else -1)
        side = int(rng.random() * 2)
        price = market.bid(side, int(rng.expovariate(1 / market.wide)))
        size = market.book.sides[side].get(price, 0)
        kind = rng.random()
        if size and kind < 0.25:
            return side, price, -size
        if size > 1 and kind < 0.55:
            return side, price, -int(rng.random() * (size - 1)) - 1
        # Mostly whole contracts, as on the exchange, and now and then hundredths of one.
        whole = int(rng.expovariate(1 / 200)) + 1
        return side, price, whole * 100 + (int(rng.random() * 100) if kind > 0.9 else 0)

    def _move(self, market: _Market, ticks: int) -> None:
        market.mid = max(2, min(market.mid + ticks, len(market.prices) - 3))
        for side in (0, 1):
            best = market.bid(side, 0)
            market.leaving += [(side, price) for price in market.book.sides[side] if price > best]
