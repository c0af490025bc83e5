"""One subscription of one connection with its sequence, and how commands are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kalshi_fast import wire

BOOKS: Final = "orderbook_delta"
LIFECYCLE: Final = "market_lifecycle_v2"
CHANNELS: Final = (BOOKS, LIFECYCLE)


@dataclass(slots=True, eq=False)
class Subscription:
    sid: int
    channel: str = BOOKS
    tickers: set[str] = field(default_factory=set)
    seq: int = 0
    silent_acks: bool = False
    yes_scale: bool = False

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    @property
    def keys(self) -> set[str]:
        """Under which names the exchange carries it."""
        return self.tickers if self.channel == BOOKS else {self.channel}


class RefusedError(Exception):
    """A command that gets an error reply."""

    def __init__(self, code: int, *, tickers: list[str] | None = None) -> None:
        super().__init__(code)
        self.body = error_body(code, tickers)


def error_body(code: int, tickers: list[str] | None = None) -> wire.ErrorBody:
    return wire.ErrorBody(code, wire.ERROR_TEXTS[code].capitalize(), market_tickers=tickers)
