"""What is announced of markets and events, in the words and the order of keys of the exchange's own frames.

Source: recordings of 2025 and 2026 (tests/exchange in the repository); where there is none, the examples of
Kalshi's AsyncAPI document (``unseen`` says where). Not here: what happens to a market (``life``), of events
(``events``).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kalshi_fast.simulator.subscription import LIFECYCLE, MULTIVARIATE

# Of market_lifecycle_v2, but for its announcements of other metadata and of another grid.
_ORDER: Final = (
    *("market_ticker", "exchange_index", "open_ts", "close_ts", "determination_ts", "result"),
    *("settlement_value", "settled_ts", "is_deactivated", "additional_metadata", "event_type"),
    *("price_level_structure", "price_ranges"),
)
_OTHER_METADATA: Final = (
    *("event_type", "market_ticker", "strike_type", "floor_strike", "cap_strike", "custom_strike"),
    "yes_sub_title",
)
_BY_DOCUMENT: Final = (
    *("market_ticker", "event_type", "exchange_index", "open_ts", "close_ts", "determination_ts", "result"),
    *("settled_ts", "additional_metadata", "price_level_structure", "price_ranges"),
)


class Announcement(NamedTuple):
    """A frame of a life-cycle channel, but for its numbers: ``type`` and ``msg``."""

    type: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it says, by one name: its event_type, or its type where that says it all."""
        return str(self.body["event_type"]) if self.type == LIFECYCLE else self.type


def of_market(ticker: str, event_type: str, more: dict[str, Any]) -> Announcement:
    """What has happened to a market."""
    order: tuple[str, ...] = _ORDER
    if event_type == "metadata_updated":
        order = _OTHER_METADATA
    elif event_type == "price_level_structure_updated":
        order = _BY_DOCUMENT
    return Announcement(LIFECYCLE, _ordered(order, ticker, event_type, more))


def of_combination(ticker: str, event_type: str, more: dict[str, Any]) -> Announcement:
    """What has happened to a multivariate market."""
    return Announcement(MULTIVARIATE, _ordered(_BY_DOCUMENT, ticker, event_type, more))


def _ordered(order: tuple[str, ...], ticker: str, event_type: str, more: dict[str, Any]) -> dict[str, Any]:
    said = {"market_ticker": ticker, "event_type": event_type, **more}
    return {name: said.pop(name) for name in order if name in said} | said


def of_event(event_ticker: str, title: str, subtitle: str) -> Announcement:
    """A new event."""
    return Announcement(
        "event_lifecycle",
        {
            "event_ticker": event_ticker,
            "exchange_index": 0,
            "title": title,
            "subtitle": subtitle,
            "collateral_return_type": "",
            "series_ticker": event_ticker.partition("-")[0],
        },
    )


def of_fees(event_ticker: str, fee_type: str | None, multiplier: int | None) -> Announcement:
    """Other fees of an event; None: they are those of its series again."""
    return Announcement(
        "event_fee_update",
        {
            "event_ticker": event_ticker,
            "fee_type_override": fee_type,
            "fee_multiplier_override": multiplier,
        },
    )
