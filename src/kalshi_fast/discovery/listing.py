"""Asks REST which markets there are: page after page, as few requests as a selection allows.

A request takes one status, and says with ``mve_filter`` whether it is about combinations: of the first 30,000
open markets of production (September 2026) 29,998 were such. A series or an event without markets is looked
up by its name: one that the exchange does not know is an error that says what it may have been. Source:
Kalshi's OpenAPI document 3.30.0 (an empty cursor ends a list). Not here: requests and their repetition
(``rest``), what is wanted (``selection``).
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from kalshi_fast import rest as rest_module
from kalshi_fast.config import is_ticker
from kalshi_fast.errors import ConfigError, RestError, excerpt
from kalshi_fast.rest_bodies import MarketPage
from kalshi_fast.statuses import LIVING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kalshi_fast.discovery.selection import Selection
    from kalshi_fast.rest import Rest
    from kalshi_fast.rest_bodies import RestMarket

log = logging.getLogger("kalshi_fast.discovery")

MOST_MARKETS: Final = 1_000_000
TICKERS_PER_REQUEST: Final = 100
_EVENTS_PER_PAGE: Final = 200
_SUGGESTED: Final = 3

Progress: TypeAlias = Callable[[int], None]


def pages(
    rest: Rest, filters: Mapping[str, str | int], page: int | None = None, *, attempts: int | None = None
) -> Iterator[RestMarket]:
    """The markets that these filters let through; one may come twice when the list changes meanwhile."""
    cursors: set[str] = set()
    cursor = ""
    while True:
        asked = {"limit": page or rest_module.PAGE, **filters, "cursor": cursor}
        answer = rest.get("/markets", asked, MarketPage, attempts=attempts)
        for market in answer.markets:
            if is_ticker(market.ticker):
                yield market
            else:
                log.warning("REST: a market is left out: %s is no ticker", excerpt(market.ticker))
        cursor = answer.cursor or ""
        if not cursor:
            return
        if cursor in cursors:
            raise RestError(f"GET /markets: the list does not end: the cursor {excerpt(cursor)} came twice")
        cursors.add(cursor)


def find(
    rest: Rest,
    selection: Selection,
    statuses: Iterable[str] = LIVING,
    progress: Progress = lambda found: None,
    page: int | None = None,
) -> dict[str, RestMarket]:
    """Every market that a selection finds, not yet narrowed to its ``top``; ``page``: so many at a time.

    Raises RestError, and ConfigError for a series or an event that the exchange does not know.
    """
    found: dict[str, RestMarket] = {}
    for query in _queries(selection, statuses):
        for market in pages(rest, query, page):
            if not selection.finds(market):
                continue
            found[market.ticker] = market
            if len(found) > MOST_MARKETS:
                raise RestError(f"GET /markets: more than {MOST_MARKETS} markets")
        progress(len(found))
    _check_names(rest, selection, found)
    rest.tell_unread()
    return found


def finds_any(rest: Rest, selection: Selection) -> bool:
    """Whether there is a market that ``find`` would find, by the first page of each request at most."""
    for query in _queries(selection, LIVING):
        page = rest.get("/markets", {"limit": rest_module.PAGE, **query}, MarketPage, attempts=1)
        if any(selection.finds(market) for market in page.markets):
            return True
    return False


def _queries(selection: Selection, statuses: Iterable[str]) -> list[dict[str, str | int]]:
    """The filters of each list that is to be asked for."""
    asked = tuple(statuses)
    queries: list[dict[str, str | int]]
    if selection.every or selection.patterns:
        queries = [{"status": status} for status in asked]
    elif selection.discovers:
        names = [("series_ticker", name) for name in selection.series]
        names += [("event_ticker", name) for name in selection.events]
        queries = [{"status": status, key: name} for key, name in names for status in asked]
    else:
        return []
    if selection.combos == "include":
        return queries
    return [{**query, "mve_filter": selection.combos} for query in queries]


def named(rest: Rest, tickers: Iterable[str], *, attempts: int | None = None) -> dict[str, RestMarket]:
    """What REST says of these markets, whatever their state; one that it does not know (any more) is left
    out.

    So it is asked what a ticker is whose book came empty and without an id.
    """
    asked = list(tickers)
    found = {}
    for start in range(0, len(asked), TICKERS_PER_REQUEST):
        part = asked[start : start + TICKERS_PER_REQUEST]
        for market in pages(rest, {"tickers": ",".join(part)}, attempts=attempts):
            found[market.ticker] = market
    rest.tell_unread()
    return found


def some_known(rest: Rest, tickers: Sequence[str]) -> None:
    """Raises ConfigError when the exchange knows none of these markets; without an answer nobody knows.

    Which of many it does not know is asked for while they are recorded (``inquiry``).
    """
    if not 0 < len(tickers) <= TICKERS_PER_REQUEST:
        return
    try:
        if named(rest, tickers, attempts=1):
            return
    except RestError as error:
        log.warning("REST has not said whether there are these markets: %s", error)
        return
    shown = ", ".join(tickers[:_SUGGESTED]) + (
        f" and {more} more" if (more := len(tickers) - _SUGGESTED) > 0 else ""
    )
    raise ConfigError(f"MARKET_TICKERS: there is no market to record: the exchange does not know {shown}")


def _check_names(rest: Rest, selection: Selection, found: dict[str, RestMarket]) -> None:
    """Who has a market is known; the others are asked for by name."""
    events = {market.event_ticker or market.ticker.rpartition("-")[0] for market in found.values()}
    for name in selection.series:
        if not any(event.startswith(f"{name}-") for event in events) and not _known(rest, f"/series/{name}"):
            listed = rest.series()
            raise _unknown("MARKET_SERIES", "series", name, [each.ticker for each in listed.series])
    for name in selection.events:
        if name not in events and not _known(rest, f"/events/{name}"):
            page = rest.events(series_ticker=name.partition("-")[0], limit=_EVENTS_PER_PAGE)
            raise _unknown("MARKET_EVENTS", "event", name, [each.event_ticker for each in page.events])


def _known(rest: Rest, path: str) -> bool:
    try:
        rest.get(path, {}, dict)
    except RestError as error:
        if error.status == 404:
            return False
        raise
    return True


def _unknown(setting: str, what: str, name: str, there_are: list[str]) -> ConfigError:
    close = difflib.get_close_matches(name, there_are, n=_SUGGESTED, cutoff=0.6)
    *others, last = close or [""]
    hint = f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if close else ""
    return ConfigError(f"{setting}: the exchange has no {what} {name}{hint}")
