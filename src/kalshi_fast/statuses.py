"""The state of a market, in the words of REST's filter and in those of its answers, translated here only.

Source: Kalshi's OpenAPI document 3.30.0 (autumn 2026) and recordings: a request takes one filter word,
anything else (the words of the answers too) is HTTP 400; a market of ``status=settled`` reads ``finalized``.
Knows nobody.
"""

from __future__ import annotations

from typing import Final

# Filter word → what the markets that it lets through say of themselves.
FILTERS: Final[dict[str, tuple[str, ...]]] = {
    "unopened": ("initialized",),
    "open": ("active",),
    "paused": ("inactive",),
    "closed": ("closed", "determined", "disputed", "amended"),
    "settled": ("finalized",),
}
# What is selected when nobody asks for another state: what trades, and what will (again). In the order of a
# market's life, so that one that moves on between two requests is not missed.
LIVING: Final = ("unopened", "paused", "open")
# What an announcement makes of a market's state.
ANNOUNCED: Final = {
    "created": "initialized",
    "activated": "active",
    "deactivated": "inactive",
    "determined": "determined",
    "settled": "finalized",
}


def is_over(status: str | None) -> bool:
    """Nothing will happen in this market any more."""
    return status in FILTERS["settled"] or status == "settled"
