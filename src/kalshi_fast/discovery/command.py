"""``kalshi-fast markets``: asks, searches, shows. Not here: each of the three."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from kalshi_fast.auth import Signer
from kalshi_fast.config import require_key
from kalshi_fast.discovery import listing, table
from kalshi_fast.discovery.selection import Selection, selected
from kalshi_fast.errors import ConfigError
from kalshi_fast.progress import ProgressLine
from kalshi_fast.rest import Rest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kalshi_fast.config import Settings
    from kalshi_fast.rest_bodies import RestMarket

log = logging.getLogger("kalshi_fast.discovery")

ANY: Final = "any"
_TABLE_ROWS: Final = 50


def markets(
    settings: Settings,
    words: Sequence[str],
    *,
    status: str = "open",
    form: str = "table",
    limit: int | None = None,
    quiet: bool = False,
) -> str:
    """The markets that the settings select (all, when they select none), as text. Raises KalshiFastError."""
    keyid, keyfile = require_key(settings)
    selection = selected(settings)
    if settings.rest_url is None:
        raise ConfigError("REST_URL is off: there is nothing to ask")
    rest = Rest(settings.rest_url, Signer.from_file(keyid, keyfile), cafile=settings.ws_cafile)
    line = ProgressLine(quiet=quiet)
    line.show("asking for the markets …")
    try:
        found = _ask(rest, selection, status, lambda count: line.show(f"{count:,} markets so far"))
    finally:
        rest.close()
        line.end()
    chosen = table.search((found[ticker] for ticker in selection.choose(found)), words)
    if form == "table":
        return table.as_table(chosen, limit or _TABLE_ROWS)
    return (table.as_json if form == "json" else table.as_tickers)(chosen[:limit])


def _ask(rest: Rest, selection: Selection, status: str, progress: listing.Progress) -> dict[str, RestMarket]:
    """Named markets whatever their status, the others as wanted."""
    found = listing.named(rest, selection.tickers)
    for ticker in selection.tickers:
        if ticker not in found:
            log.warning("the exchange does not know %s: there is no such market, or it is archived", ticker)
    if selection.discovers or not selection.tickers:
        everything = selection if selection.discovers else Selection(all_open=True, combos=selection.combos)
        found |= listing.find(rest, everything, ("" if status == ANY else status,), progress)
    return found
