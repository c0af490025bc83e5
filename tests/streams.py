"""Random recorded events, as a source gives them or as files, and what they say, as simply as it can be."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.replaying.chunks import Chunk, make_chunk
from kalshi_fast.sinks import layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

START_NS = 1_764_547_190_000_000_000  # 2025-11-30 23:59:50: the date changes soon
TICKERS = ["KXA-1", "KXB-2.50"]
Sides = tuple[dict[int, int], dict[int, int]]  # price_e4 -> qty_e2, bids of yes and of no


@dataclass(frozen=True, slots=True)
class Row:
    kind: int
    market: int
    side: int
    price_e4: int
    qty_e2: int
    ts_us: int
    ingest_ns: int
    seq: int


def random_rows(seed: int, frames: int, *, low: int = 40, high: int = 60, step_ns: int = 10**9) -> list[Row]:
    """Frames of two markets by the rules of the feed; with prices so near each other that books cross."""
    dice = random.Random(seed)
    books: list[Sides | None] = [None, None]
    rows: list[Row] = []
    at_ns = START_NS
    for seq in range(1, frames + 1):
        at_ns += dice.randrange(1, step_ns)
        market = dice.randrange(len(TICKERS))
        book = books[market]

        def row(
            kind: int,
            side: int = 0,
            cents: int = 0,
            qty: int = 0,
            market: int = market,
            at: tuple[int, int] = (at_ns, seq),
        ) -> Row:
            at_ns, seq = at
            ts_us = at_ns // 1000 + (dice.randrange(-5000, 500) if kind == DELTA else 0)
            return Row(kind, market, side, cents * 100, qty, ts_us, at_ns, seq)

        if book is None or dice.random() < 0.03:
            if book is not None and dice.random() < 0.5:
                rows.append(row(GAP))
                books[market] = None
                continue
            sides: Sides = ({}, {})
            for side in (0, 1):
                for cents in dice.sample(range(low, high), dice.randrange(6)):
                    sides[side][cents] = dice.randrange(1, 10**6)
            rows.append(row(CLEAR))
            rows += [row(SNAPSHOT, side, c, q) for side in (0, 1) for c, q in sides[side].items()]
            books[market] = sides
            continue
        side = dice.randrange(2)
        cents = dice.choice([*book[side], dice.randrange(low, high)])
        size = book[side].get(cents, 0)
        change = -size if dice.random() < 0.5 and size else dice.randrange(1, 10**6)
        if dice.random() < 0.02:
            rows.append(row(DELTA, side, cents, -size - 1))  # cannot be true: the book is unknown from here
            books[market] = None
            continue
        rows.append(row(DELTA, side, cents, change))
        book[side][cents] = size + change
        if not book[side][cents]:
            del book[side][cents]
    return rows


class Reference:
    """The book of one market after each row, None where it is unknown."""

    def __init__(self) -> None:
        self.book: Sides | None = None

    def apply(self, row: Row) -> None:
        if row.kind == CLEAR:
            self.book = ({}, {})
        elif row.kind == GAP:
            self.book = None
        elif self.book is not None:
            levels = self.book[row.side]
            size = levels.pop(row.price_e4, 0) + row.qty_e2
            if size > 0:
                levels[row.price_e4] = size
            elif size < 0:
                self.book = None

    @property
    def best(self) -> tuple[int | None, int | None]:
        """Best bid and ask of yes."""
        if self.book is None:
            return None, None
        yes, no = (max(levels, default=None) for levels in self.book)
        return yes, None if no is None else 10_000 - no

    @property
    def crossed(self) -> bool:
        bid, ask = self.best
        return bid is not None and ask is not None and bid >= ask


def chunk_of(rows: Sequence[Row]) -> Chunk:
    names = {"type": "kind", "market_ix": "market"}
    columns = ("type", "market_ix", "side", "price_e4", "qty_e2", "ts_us", "ingest_ns", "seq")
    return make_chunk({n: np.array([getattr(row, names.get(n, n)) for row in rows]) for n in columns})


class ListSource:
    """A source over rows in memory, in chunks of some length."""

    def __init__(self, rows: Sequence[Row], chunk_rows: int) -> None:
        self.tickers = TICKERS
        self.rows = len(rows)
        self.read = 0
        self._chunks = [chunk_of(rows[at : at + chunk_rows]) for at in range(0, len(rows), chunk_rows)]

    def chunks(self, columns: Collection[str] = ()) -> Iterator[Chunk]:
        yield from self._chunks


def write_events(directory: Path, rows: Sequence[Row]) -> Path:
    """The rows as files of our layout; returns the directory."""
    dates: dict[str, list[Row]] = {}
    for row in rows:
        dates.setdefault(layout.date_name(row.ingest_ns // 1000), []).append(row)
    for date, of_date in dates.items():
        kinds, sides = ["snapshot", "delta", "clear", "gap"], ["yes", "no"]
        columns = {
            "type": [kinds[row.kind] for row in of_date],
            "conn_id": [7] * len(of_date),
            "sid": [1] * len(of_date),
            "seq": [row.seq for row in of_date],
            "market_id": ["00000000-0000-0000-0000-000000000000"] * len(of_date),
            "market_ticker": [TICKERS[row.market] for row in of_date],
            "side": [sides[row.side] for row in of_date],
            "price_e4": [row.price_e4 for row in of_date],
            "qty_e2": [row.qty_e2 for row in of_date],
            "ts": [row.ts_us for row in of_date],
            "ingest_ts": [row.ingest_ns for row in of_date],
        }
        arrays = [
            pa.array(columns[field.name], pa.int64()).cast(field.type)
            if pa.types.is_timestamp(field.type)
            else pa.array(columns[field.name]).dictionary_encode().cast(field.type)
            if pa.types.is_dictionary(field.type)
            else pa.array(columns[field.name], field.type)
            for field in EVENT_SCHEMA
        ]
        path = directory / "orderbook" / date / layout.part_name(of_date[0].ingest_ns // 1000)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {layout.SCHEMA_VERSION_KEY: str(SCHEMA_VERSION)}
        table = pa.table(arrays, schema=EVENT_SCHEMA).replace_schema_metadata(metadata)
        pq.write_table(table, path, **layout.writer_options())
    return directory
