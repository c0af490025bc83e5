"""The life of markets: now and then one is created and opened, one paused, one given a finer price grid, one
another strike, and the oldest is closed, determined and settled; each is announced, and so are events that
come with them, other fees and multivariate markets (``events``). Also what REST tells of them.

Not here: the books and trades of a market while it lives.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.simulator import announcements, grids
from kalshi_fast.simulator.events import Events
from kalshi_fast.simulator.subscription import LIFECYCLE
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from kalshi_fast.simulator.agenda import Agenda
    from kalshi_fast.simulator.exchange import Exchange

LEAD_S: Final = 0.5
PATIENCE_NS: Final = 5_000_000_000
SERIES: Final = ("KXSIM", "KXRAIN", "KXSIM", "KXSIM")  # of the markets that are created, in turn
YEARS: Final = 70
_DAY_S: Final = 86_400


@dataclass(slots=True)
class Market:
    """What REST says of a market, apart from its prices. ``legs``: what a combination is made of."""

    ticker: str
    open_ts: int
    close_ts: int
    status: str = "active"
    result: str = ""
    strike: int = 0
    announced: list[str] = field(default_factory=list)
    created_ns: int = 0  # on the monotonic clock
    heard_ns: int = 0  # how much later somebody had subscribed to its book
    settled_us: int = 0
    legs: tuple[tuple[str, str, str], ...] = ()  # of a combination: event, market, side

    @property
    def event_ticker(self) -> str:
        return self.ticker.rpartition("-")[0] or self.ticker

    @property
    def series_ticker(self) -> str:
        return self.ticker.partition("-")[0]


class Life:
    """``plan`` makes it happen every so many seconds of the play.

    A market is announced before it opens and settled after it has closed, each ``LEAD_S`` of the play apart
    (less when things happen faster than that). It opens with orders, which are changes like any other. Who
    listens to announcements is waited for with the opening, up to PATIENCE_NS: a machine that has more to do
    than it can is no reason to miss one. How long it took is known.
    """

    def __init__(self, exchange: Exchange, agenda: Agenda) -> None:
        now_s = int(time.time())
        source = exchange.source
        legs = source.legs if isinstance(source, SyntheticMarkets) else {}
        self.markets = {
            ticker: Market(ticker, now_s - 60, now_s + _DAY_S, legs=made_of)
            for ticker, made_of in legs.items()
        }
        for number, ticker in enumerate(ticker for ticker in source.books if ticker not in legs):
            self.markets[ticker] = Market(ticker, now_s - _DAY_S, now_s + _DAY_S, strike=number)
        self._exchange = exchange
        self._agenda = agenda
        self._events = Events(exchange, agenda, {market.event_ticker for market in self.markets.values()})
        self._rng = Random(f"{exchange.seed} life")  # noqa: S311 - a simulation
        self._created = 0
        self._lead_s = LEAD_S

    def plan(self, every_s: float, lead_s: float | None = None) -> None:
        self._lead_s = min(LEAD_S, every_s) if lead_s is None else lead_s

        def happen() -> None:
            self._turn()
            self._agenda.after(every_s, happen)

        self._agenda.after(every_s, happen)

    def is_combination(self, ticker: str) -> bool:
        market = self.markets.get(ticker)
        return market is not None and bool(market.legs)

    def heard(self, ticker: str) -> None:
        """Somebody has subscribed to the book of a market."""
        market = self.markets.get(ticker)
        if market is not None and market.created_ns and not market.heard_ns:
            market.heard_ns = time.monotonic_ns() - market.created_ns

    @property
    def created(self) -> list[str]:
        """The markets that did not exist at the start."""
        return [market.ticker for market in self.markets.values() if "created" in market.announced]

    def _turn(self) -> None:
        source = self._exchange.source
        if not isinstance(source, SyntheticMarkets):
            return
        self._create(source)
        living = [market for market in self.markets.values() if market.ticker in source.playing]
        if len(living) > 1:
            self._reprice(source, self._rng.choice(living))
            self._rename(self._rng.choice(living))
            self._close(source, living[0])
        if len(living) > 2 and self._created % 3 == 0:
            self._pause(source, living[1])
        if len(living) > 1:
            self._events.change_fees(self._rng.choice(living[:2]).event_ticker, 2)
            self._events.combine([market.ticker for market in living[:2]], self._lead_s, self._rng)

    def _create(self, source: SyntheticMarkets) -> None:
        now_s = int(time.time())
        structure = grids.STRUCTURES[self._created % len(grids.STRUCTURES)]
        series = SERIES[self._created % len(SERIES)]
        # Every time round there are new events.
        year = 26 + self._created // len(SERIES) % YEARS
        ticker = f"{series}-{year}DEC31-N{self._created:04d}"
        self._created += 1
        market = Market(ticker, now_s, now_s + _DAY_S, "initialized", strike=10_000 * self._created)
        self._events.begin(market.event_ticker)
        self.markets[ticker] = market
        source.add_market(ticker, structure, self._rng)
        self.tell(
            market,
            "created",
            exchange_index=0,
            open_ts=market.open_ts,
            close_ts=market.close_ts,
            additional_metadata=announced_metadata(market),
            price_level_structure=structure,
            price_ranges=grids.price_ranges(structure),
        )
        market.created_ns = time.monotonic_ns()
        self._agenda.after(self._lead_s, lambda: self._open(source, market))

    def _open(self, source: SyntheticMarkets, market: Market) -> None:
        exchange = self._exchange
        patient = time.monotonic_ns() - market.created_ns < PATIENCE_NS
        if patient and exchange.carriers(LIFECYCLE) and not exchange.carriers(market.ticker):
            self._agenda.after(self._lead_s, lambda: self._open(source, market))
            return
        market.status = "active"
        self.tell(market, "activated")
        for change in source.opening(market.ticker, time.time_ns()):
            self._exchange.publish(change)
        source.start(market.ticker)

    def _pause(self, source: SyntheticMarkets, market: Market) -> None:
        source.stop(market.ticker)
        market.status = "inactive"
        self.tell(market, "deactivated", is_deactivated=True)

        def resume() -> None:
            market.status = "active"
            self.tell(market, "activated")
            source.start(market.ticker)

        self._agenda.after(self._lead_s, resume)

    def _reprice(self, source: SyntheticMarkets, market: Market) -> None:
        finer = grids.finer(source.structures[market.ticker])
        if finer is not None:
            source.restructure(market.ticker, finer)
            self.tell(
                market,
                "price_level_structure_updated",
                price_level_structure=finer,
                price_ranges=grids.price_ranges(finer),
            )

    def _rename(self, market: Market) -> None:
        market.strike += 1
        told = metadata(market)
        changed = {name: told[name] for name in ("strike_type", "floor_strike", "yes_sub_title")}
        self.tell(market, "metadata_updated", custom_strike={"round_digits": "1"}, **changed)

    def _close(self, source: SyntheticMarkets, market: Market) -> None:
        source.stop(market.ticker)
        market.close_ts = int(time.time())
        market.status = "inactive"
        self.tell(market, "close_date_updated", close_ts=market.close_ts)
        self.tell(market, "deactivated", is_deactivated=True)
        self._agenda.after(self._lead_s, lambda: self._settle(market))

    def _settle(self, market: Market) -> None:
        now_s = int(time.time())
        market.result = self._rng.choice(("yes", "no"))
        value = "1.0000" if market.result == "yes" else "0.0000"
        market.status = "determined"
        self.tell(market, "determined", result=market.result, settlement_value=value, determination_ts=now_s)
        market.status = "finalized"
        market.settled_us = time.time_ns() // 1000
        self.tell(market, "settled", settled_ts=now_s)

    def tell(self, market: Market, event_type: str, **more: Any) -> None:  # noqa: ANN401
        """Announces it to all who listen."""
        market.announced.append(event_type)
        self._exchange.announce(LIFECYCLE, announcements.of_market(market.ticker, event_type, more))


def announced_metadata(market: Market) -> dict[str, Any]:
    """What the announcement of a new market says of it beside times and prices."""
    told = metadata(market)
    return {
        "name": told["yes_sub_title"],
        "title": told["title"],
        "yes_sub_title": told["yes_sub_title"],
        "no_sub_title": told["yes_sub_title"],
        "rules_primary": f"If the simulation reaches {market.strike}, then the market resolves to Yes.",
        "rules_secondary": "Nobody is behind it.",
        "can_close_early": True,
        "event_ticker": market.event_ticker,
        "expected_expiration_ts": market.close_ts + 3600,
        "strike_type": told["strike_type"],
        "floor_strike": told["floor_strike"],
    }


def metadata(market: Market) -> dict[str, Any]:
    """What a market is about, as REST says it."""
    return {
        "event_ticker": market.event_ticker,
        "series_ticker": market.series_ticker,
        "title": f"Will the simulation reach {market.strike}?",
        "yes_sub_title": f"{market.strike} or more",
        "strike_type": "greater_or_equal",
        "floor_strike": market.strike + 0.5,
    }
