"""One subscription of one connection with its sequence, and how commands are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from kalshi_fast import wire
from kalshi_fast.config import REFERENCE_CHANNELS

BOOKS: Final = "orderbook_delta"
LIFECYCLE: Final = "market_lifecycle_v2"
MULTIVARIATE: Final = "multivariate_market_lifecycle"
FILL: Final = "fill"  # a private one: what has been traded of our own orders
TRADE: Final = "trade"
TICKER: Final = "ticker"
# On which scale no-side prices are told: as ``use_yes_price`` asks, or always on one.
ScaleRule: TypeAlias = Literal["asked", "yes", "no"]
CHANNELS: Final = (BOOKS, LIFECYCLE, MULTIVARIATE, TRADE, TICKER, FILL, *REFERENCE_CHANNELS)
BY_MARKET: Final = (BOOKS, TRADE, TICKER)


# As the AsyncAPI document words them; of 25 it has no wording of the message.
_TEXTS: Final = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    18: "Command timeout",
    24: "Index IDs required",
    25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded",
    27: "Too many requests",
    28: "Underlying tickers required",
}


def key(channel: str, ticker: str) -> str:
    """Under which name the exchange carries a channel of one market."""
    return ticker if channel == BOOKS else f"{channel} {ticker}"


@dataclass(slots=True, eq=False)
class Subscription:
    sid: int
    channel: str = BOOKS
    tickers: set[str] = field(default_factory=set)
    seq: int = 0
    silent_acks: bool = False
    yes_scale: bool = False
    whole: bool = False  # of all markets
    quotes: bool = False  # of the ticker channel: what the markets stand at comes at once
    names: set[str] = field(default_factory=set)  # indices or underlyings, of a channel of reference prices

    @property
    def numbered(self) -> bool:
        """Whether its frames have numbers: those of tickers have none."""
        return self.channel not in (TICKER, FILL)

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    @property
    def keys(self) -> set[str]:
        """Under which names the exchange carries it."""
        if self.whole:
            return {self.channel}
        return {key(self.channel, ticker) for ticker in self.tickers}


class RefusedError(Exception):
    """A command that gets an error reply."""

    def __init__(self, code: int, *, tickers: list[str] | None = None) -> None:
        super().__init__(code)
        self.body = error_body(code, tickers)


def error_body(code: int, tickers: list[str] | None = None) -> wire.ErrorBody:
    return wire.ErrorBody(code, _TEXTS[code], market_tickers=tickers)
