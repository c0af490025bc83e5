"""One subscription of one connection with its sequence, and how commands are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kalshi_fast import wire

BOOKS: Final = "orderbook_delta"
LIFECYCLE: Final = "market_lifecycle_v2"
MULTIVARIATE: Final = "multivariate_market_lifecycle"
FILL: Final = "fill"  # a private one: what has been traded of our own orders
TRADE: Final = "trade"
TICKER: Final = "ticker"
CHANNELS: Final = (BOOKS, LIFECYCLE, MULTIVARIATE, TRADE, TICKER, FILL)
BY_MARKET: Final = (BOOKS, TRADE, TICKER)


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
    return wire.ErrorBody(code, wire.ERROR_TEXTS[code].capitalize(), market_tickers=tickers)
