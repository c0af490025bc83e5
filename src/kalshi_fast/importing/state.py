"""What a rebuild keeps: markets, the snapshot that is being read, the rows that are kept aside.

Not here: what is done with them (``rebuild``).
"""

from __future__ import annotations

from array import array
from typing import Protocol

from kalshi_fast._book import LINEAR_CENT, OrderBook


class Output(Protocol):
    """Where rows go; they come in the order of ``ingest_ns``."""

    def add(
        self,
        kind: int,
        conn_id: int,
        sid: int,
        seq: int,
        ticker: int,
        market_id: int,
        side: int,
        price_e4: int,
        qty_e2: int,
        ts_us: int,
        ingest_ns: int,
    ) -> None: ...


class Aside:
    """Rows kept aside: where they stand, and why. Small, whatever their number."""

    def __init__(self) -> None:
        self.file, self.row, self.reason = array("i"), array("q"), array("b")
        self.reasons: list[str] = []

    def __len__(self) -> int:
        return len(self.row)

    def add(self, file: int, row: int, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.file.append(file)
        self.row.append(row)
        self.reason.append(self.reasons.index(reason))


class Market:
    __slots__ = ("book", "changes", "crossed", "known", "number", "sid", "snapshots")

    def __init__(self, number: int) -> None:
        self.number = number
        self.known = False
        self.sid = 0  # of the subscription that made it known
        self.book = OrderBook(LINEAR_CENT)
        self.crossed = False
        self.snapshots = 0
        # Sums of changes while the book is unknown, to tell how wrong a book begun at nothing would be.
        self.changes: dict[tuple[int, int], int] = {}


class Snapshot:
    """The snapshot whose rows are coming."""

    __slots__ = ("at", "broken", "levels", "market", "market_id", "rows", "seq", "sid", "ts_us")

    def __init__(
        self, market: Market, market_id: int, sid: int, seq: int, ts_us: int, at: tuple[int, int, int]
    ) -> None:
        self.at = at  # file, row, ingest_ns of its first row
        self.market = market
        self.market_id = market_id
        self.sid = sid
        self.seq = seq
        self.ts_us = ts_us
        self.broken = False
        self.levels: dict[tuple[int, int], int] = {}
        self.rows: list[tuple[int, int, int]] = []  # file, row, ingest_ns
