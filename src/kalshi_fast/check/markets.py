"""The markets: whether the exchange knows those that are named, and has any that the rest of the selection
finds.

One page of each question at most. Not here: whether REST answers at all (``exchange``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kalshi_fast.check.finding import Check, Finding, failure, ok, warning
from kalshi_fast.check.key import signer
from kalshi_fast.discovery import listing
from kalshi_fast.discovery.selection import nothing_found, selected
from kalshi_fast.errors import ConfigError
from kalshi_fast.rest import Rest
from kalshi_fast.statuses import is_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings

NAME: Final = "markets"
SHOWN: Final = 5


def checks(settings: Settings) -> list[Check]:
    return [Check(NAME, lambda: look(settings))]


def look(settings: Settings) -> Iterator[Finding]:
    selection = selected(settings)
    if not selection.tickers and not selection.discovers:
        yield ok(NAME, "none are chosen yet", "MARKET_TICKERS, --series, --match and others choose them")
        return
    try:
        made = signer(settings)
    except ConfigError:
        made = None
    if made is None or settings.rest_url is None:
        yield ok(NAME, f"not asked for: {'REST_URL is off' if made else 'there is no key to sign with'}")
        return
    rest = Rest(settings.rest_url, made, cafile=settings.ws_cafile)
    try:
        known = listing.named(rest, selection.tickers, attempts=1)
        some = listing.finds_any(rest, selection) if selection.discovers else None
    finally:
        rest.close()
    absent = [ticker for ticker in selection.tickers if ticker not in known]
    over = [ticker for ticker, market in known.items() if is_over(market.status)]
    if absent:
        yield failure(
            NAME,
            f"the exchange does not know {some_of(absent)}",
            "see whether the names are right; one of long ago is archived",
        )
    if over:
        yield warning(NAME, f"settled, nothing will come of: {some_of(over)}", "leave them out")
    if some is False:
        yield warning(NAME, str(nothing_found(selection)), "a recording that finds none does not begin")
    if known and not (absent or over):
        yield ok(NAME, f"the exchange knows the {len(known):,} that are named")
    if some:
        yield ok(NAME, "the exchange has some that are found")


def some_of(tickers: list[str]) -> str:
    """A few by name, the others by number."""
    more = len(tickers) - SHOWN
    return ", ".join(tickers[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
