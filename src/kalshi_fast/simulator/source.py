"""What the exchange plays: markets with true books, and one change after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kalshi_fast.simulator.frames import Form, TrueBook


class Change(NamedTuple):
    """One book frame to send: its market, its type and the JSON of its ``msg``."""

    ticker: str
    type: bytes
    body: bytes


class Source(Protocol):
    """``books`` is the truth after the last ``step``; a step applies one change and tells it."""

    @property
    def books(self) -> Mapping[str, TrueBook]: ...

    @property
    def form(self) -> Form: ...

    def step(self, now_ns: int) -> Change | None:
        """The next change, None when the play is over."""
        ...


SNAPSHOT = b"orderbook_snapshot"
DELTA = b"orderbook_delta"
