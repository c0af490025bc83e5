"""Files as the seed wrote them, with a truth to compare with: frames of connections, and their rows."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Row: TypeAlias = dict[str, Any]
Book: TypeAlias = dict[tuple[str, int], int]  # (side, cents) -> contracts, no zeros

START = datetime(
    2025, 11, 4, 23, 59, 56, tzinfo=UTC
)  # the first seconds are of one date, the rest of the next
IDS = {"KXA-1": "9b5353aa-1492-4dde-982a-4279d4c4899e", "KXB-2": "", "KXC.3": ""}
SCHEMA = pa.schema(
    [
        ("type", pa.string()),
        ("sid", pa.int64()),
        ("seq", pa.int64()),
        ("market_id", pa.string()),
        ("market_ticker", pa.string()),
        ("side", pa.string()),
        ("price", pa.int64()),
        ("qty", pa.int64()),
        ("ts", pa.string()),
        ("ingest_ts", pa.string()),
    ]
)


@dataclass
class Frame:
    """One frame of the exchange: its rows, and the book of its market after it."""

    rows: list[Row]
    book: Book
    ticker: str
    seq: int


@dataclass
class Feed:
    """A seed recorder's view of an exchange: ``connect`` and ``delta`` make frames, in order."""

    seed: int
    frames: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.at = START
        self.books: dict[str, Book] = {ticker: {} for ticker in IDS}
        self.seq = 0

    def run(self, connections: int, deltas: int) -> list[Frame]:
        for _ in range(connections):
            self.connect()
            for _ in range(deltas):
                self.delta()
        return self.frames

    def connect(self) -> None:
        self.at += timedelta(seconds=2)
        self.seq = 0
        for ticker, book in self.books.items():
            for _ in range(self.random.randrange(3)):  # trading went on meanwhile
                self._change(ticker)
            if not book:
                book["yes", 1] = 5  # a snapshot without levels has no rows
            self.seq += 1
            self.at += timedelta(microseconds=self.random.randrange(1, 5000))
            rows = [
                self._row("snapshot", ticker, side, price, qty)
                for (side, price), qty in sorted(book.items(), key=lambda item: (item[0][0] == "no", item))
            ]
            self.frames.append(Frame(rows, dict(book), ticker, self.seq))

    def delta(self) -> None:
        ticker = self.random.choice(list(self.books))
        self.seq += 1
        self.at += timedelta(microseconds=self.random.randrange(1, 300_000))
        side, price, change = self._change(ticker)
        row = self._row("delta", ticker, side, price, change)
        self.frames.append(Frame([row], dict(self.books[ticker]), ticker, self.seq))

    def _change(self, ticker: str) -> tuple[str, int, int]:
        book = self.books[ticker]
        side, price = self.random.choice(("yes", "no")), self.random.randrange(1, 50)
        size = book.get((side, price), 0)
        change = self.random.randrange(-size, 20) if self.random.random() < 0.7 else -size
        book[side, price] = size + change
        if not book[side, price]:
            del book[side, price]
        return side, price, change

    def _row(self, kind: str, ticker: str, side: str, price: int, qty: int) -> Row:
        late = timedelta(milliseconds=3) if kind == "delta" else timedelta()
        return {
            "type": kind,
            "sid": 1,
            "seq": self.seq,
            "market_id": IDS[ticker],
            "market_ticker": ticker,
            "side": side,
            "price": price,
            "qty": qty,
            "ts": (self.at - late).isoformat(timespec="microseconds"),
            "ingest_ts": self.at.isoformat(timespec="microseconds"),
        }


def rows_of(frames: Sequence[Frame]) -> list[Row]:
    return [row for frame in frames for row in frame.rows]


def write(path: Path, rows: Sequence[Row], schema: pa.Schema = SCHEMA, row_group_rows: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, row_group_size=row_group_rows)
    return path
