"""What is wanted, as a value: markets by name, series, event or pattern, all that are open, the busiest.

What is named in any of these ways is wanted; ``top`` then keeps the so many with the largest volume of those
that were found, never of those that were named one by one. Patterns are the shell's (``KXBTC*``) and meet
whole tickers. Combination markets (KXMVE…) are among those found only where ``combos`` says so: there are
tens of thousands of them. Not here: asking the exchange (``listing``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from kalshi_fast._decode import contracts_e2, qty_e2
from kalshi_fast.config import read_tickers
from kalshi_fast.errors import ConfigError, FieldError
from kalshi_fast.rest_bodies import is_combination, names_combination, series_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kalshi_fast.config import Settings
    from kalshi_fast.rest_bodies import RestMarket

# Who is in stays in until others are this much ahead: markets of like volume must not come and go.
_STAY_NUM: Final = 5
_STAY_DEN: Final = 4


@dataclass(frozen=True, slots=True)
class Selection:
    """``tickers``: by name. ``top`` alone means the busiest of all that are open."""

    tickers: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    all_open: bool = False
    top: int | None = None
    combos: str = "exclude"
    _regex: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.patterns:
            joined = "|".join(translate(pattern) for pattern in self.patterns)
            object.__setattr__(self, "_regex", re.compile(joined))

    @property
    def discovers(self) -> bool:
        """The exchange has to be asked which markets these are, and new ones may join them."""
        return bool(self.series or self.events or self.patterns or self.all_open or self.top)

    @property
    def every(self) -> bool:
        """Of the markets that are open, none is left out but by ``top``."""
        return self.all_open or (self.top is not None and not (self.series or self.events or self.patterns))

    @property
    def combinations(self) -> bool:
        """Some of these markets may be combinations."""
        return (self.discovers and self.combos != "exclude") or any(map(names_combination, self.tickers))

    def finds(self, market: RestMarket) -> bool:
        """Whether a market of REST is one of those to be found, and of a wanted kind."""
        if self.combos != "include" and is_combination(market) != (self.combos == "only"):
            return False
        return self.matches(market.ticker, market.event_ticker or "", series_of(market))

    def announced(self, ticker: str, event: str, series: str) -> bool:
        """The same of an announcement, which tells less."""
        if self.combos != "include" and names_combination(ticker) != (self.combos == "only"):
            return False
        return self.matches(ticker, event, series)

    def matches(self, ticker: str, event: str = "", series: str = "") -> bool:
        """Whether a market is one of those to be found.

        An announcement does not always say to which event and series a market belongs: then its name does,
        for tickers are built of them (series-event-market).
        """
        event = event or ticker
        return (
            self.every
            or any(event == name or ticker.startswith(f"{name}-") for name in self.events)
            or any(series == name or event.startswith(f"{name}-") for name in self.series)
            or (self._regex is not None and self._regex.match(ticker) is not None)
        )

    def choose(self, found: Mapping[str, RestMarket], carried: Collection[str] = ()) -> list[str]:
        """Which of the markets that were found are to be recorded, the largest volume first."""
        ranked = sorted(found, key=lambda ticker: (-volume_e2(found[ticker]), ticker))
        if self.top is None:
            return ranked
        stay = set(carried)
        last = self.top * _STAY_NUM // _STAY_DEN
        return ranked[: self.top] + [ticker for ticker in ranked[self.top : last] if ticker in stay]


def selected(settings: Settings) -> Selection:
    """The selection of some settings; reads the file of tickers. Raises ConfigError."""
    tickers = settings.market_tickers
    if settings.market_tickers_file is not None:
        tickers = tuple(dict.fromkeys((*tickers, *read_tickers(settings.market_tickers_file))))
    selection = Selection(
        tickers,
        settings.market_series,
        settings.market_events,
        settings.market_match,
        settings.market_all_open,
        settings.market_top,
        settings.market_combos,
    )
    narrower = selection.series or selection.events or selection.patterns
    if selection.all_open and narrower:
        raise ConfigError(
            "MARKET_ALL_OPEN: every market is meant; leave out MARKET_SERIES, MARKET_EVENTS and MARKET_MATCH"
        )
    if selection.combos == "exclude":
        for name, values in (
            ("MARKET_SERIES", selection.series),
            ("MARKET_EVENTS", selection.events),
            ("MARKET_MATCH", selection.patterns),
        ):
            for value in filter(names_combination, values):
                raise ConfigError(
                    f"{name}: {value} are combinations, which MARKET_COMBOS excludes: add --combos"
                )
    if selection.discovers and settings.rest_url is None:
        raise ConfigError("REST_URL is off: without it markets can only be named, in MARKET_TICKERS")
    return selection


def nothing_found(selection: Selection) -> ConfigError:
    """There is no market to record. Time may mend it: tomorrow's markets come tomorrow."""
    named = [
        *(f"series {name}" for name in selection.series),
        *(f"event {name}" for name in selection.events),
        *(f"pattern {name}" for name in selection.patterns),
    ]
    what = (
        ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "") or "all open markets"
    )
    kind = {"exclude": "", "include": "", "only": "combination "}[selection.combos]
    error = ConfigError(
        f"there is no {kind}market to record: the exchange has none that is open, paused or to come ({what})"
    )
    error.exit_code = 1
    return error


def volume_e2(market: RestMarket) -> int:
    """Hundredths of contracts traded so far; 0 for what is not told, or cannot be."""
    return _contracts(market.volume_fp, market.volume)


def volume_24h_e2(market: RestMarket) -> int:
    """The same of the last 24 hours."""
    return _contracts(market.volume_24h_fp, market.volume_24h)


def _contracts(fixed: str | None, whole: int | None) -> int:
    try:
        return qty_e2(fixed) if fixed else contracts_e2(whole or 0)
    except FieldError:
        return 0
