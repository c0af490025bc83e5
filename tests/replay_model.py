"""The reference replay: the rules of the rows in plain Python, and recordings to try it on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.channels.rows import SCHEMAS, arrow
from kalshi_fast.sinks import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kalshi_fast._book import OrderBook
    from kalshi_fast.replaying.chunks import Chunk

Row = tuple[int, int, int, int, int]  # type, market, side, price_e4, qty_e2
KINDS = ("snapshot", "delta", "clear", "gap")
SIDES = ("yes", "no")


class ReferenceBook:
    """One market: its levels, None while it is unknown."""

    def __init__(self) -> None:
        self.levels: dict[tuple[int, int], int] | None = None

    def apply(self, kind: int, side: int, price: int, qty: int) -> None:
        if kind == CLEAR:
            self.levels = {}
        elif kind == GAP:
            self.levels = None
        elif self.levels is not None:
            before = self.levels.get((side, price), 0)
            after = qty if kind == SNAPSHOT else before + qty
            wrong = price > 10_000 or after < 0 or (kind == SNAPSHOT and (before != 0 or qty <= 0))
            if wrong:
                self.levels = None
            elif after:
                self.levels[side, price] = after
            else:
                self.levels.pop((side, price), None)

    def digest(self) -> str | None:
        if self.levels is None:
            return None
        return _digest([sorted((p, q) for (s, p), q in self.levels.items() if s == side) for side in (0, 1)])


def digest(book: OrderBook) -> str | None:
    """The same of one of ours; None while it is unknown."""
    if book.stale:
        return None
    return _digest([sorted(levels) for levels in book.ladders()])


def _digest(sides: list[list[tuple[int, int]]]) -> str:
    return hashlib.blake2b(json.dumps(sides).encode(), digest_size=12).hexdigest()


def rows_of(chunks: Iterable[Chunk], tickers: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """(ticker, type, side, price, qty) of every row."""
    found: list[tuple[str, int, int, int, int]] = []
    for chunk in chunks:
        columns = (chunk.market_ix, chunk.type, chunk.side, chunk.price_e4, chunk.qty_e2)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found += [(tickers[market], kind, side, price, qty) for market, kind, side, price, qty in rows]
    return found


def table_of(
    rows: Sequence[Row], *, start_ns: int = 1_795_000_000_000_000_000, step_ns: int = 1000
) -> pa.Table:
    """Rows as a recorder might have stored them: one connection, one frame each; a snapshot is one frame."""
    values: dict[str, list[Any]] = {name: [] for name in EVENT_SCHEMA.names}
    at_ns, seq = start_ns, 0
    for kind, market, side, price, qty in rows:
        if kind != SNAPSHOT:
            at_ns, seq = at_ns + step_ns, seq + 1
        row = (
            *(KINDS[kind], 7, 1, seq, f"00000000-0000-0000-0000-{market:012d}", f"KX-{market}"),
            *(SIDES[side], price, qty, at_ns // 1000, at_ns),
        )
        for name, value in zip(EVENT_SCHEMA.names, row, strict=True):
            values[name].append(value)
    columns = []
    for field in EVENT_SCHEMA:
        column = pa.array(values[field.name], _plain(field.type))
        if pa.types.is_dictionary(field.type):
            column = column.dictionary_encode().cast(field.type)
        columns.append(column)
    return pa.table(columns, schema=EVENT_SCHEMA)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def write(
    path: Path,
    table: pa.Table,
    *,
    row_group: int = 1000,
    version: object = SCHEMA_VERSION,
    ranges: list[list[Any]] | None = None,
) -> Path:
    """A file as the recorder's are. ``version`` None: one that says nothing of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {} if version is None else {layout.SCHEMA_VERSION_KEY: str(version)}
    if ranges is not None:
        metadata[layout.RANGES_KEY] = json.dumps(ranges)
    options = layout.writer_options()
    if table.schema != EVENT_SCHEMA:
        options = {"compression": "zstd"}
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=row_group)
        writer.add_key_value_metadata(metadata)
    return path


def write_rows(
    path: Path,
    table: str,
    rows: Sequence[Any],
    *,
    row_group: int = 1000,
    ranges: list[list[Any]] | None = None,
    columns: pa.Table | None = None,
    version: int = SCHEMA_VERSION,
) -> Path:
    """A file of another table as the recorder's are. ``columns``: these instead of the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = pa.Table.from_batches([arrow(table, rows)]) if columns is None else columns
    options = layout.writer_options(SCHEMAS[table]) if columns.schema == SCHEMAS[table] else {}
    with pq.ParquetWriter(path, columns.schema, **options) as writer:
        writer.write_table(columns, row_group_size=row_group)
        told = {layout.SCHEMA_VERSION_KEY: str(version), layout.RANGES_KEY: json.dumps(ranges or [])}
        writer.add_key_value_metadata(told)
    return path


def some_rows(n: int, seed: int = 1, markets: int = 5) -> list[Row]:
    """A plausible recording: every market begins with a snapshot; levels never fall below zero."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    books = [ReferenceBook() for _ in range(markets)]

    def snapshot(market: int) -> None:
        fresh: list[Row] = [(CLEAR, market, 0, 0, 0)]
        for side in (0, 1):
            prices = sorted(rng.choice(np.arange(1, 50), 4, replace=False).tolist(), reverse=True)
            fresh += [(SNAPSHOT, market, side, price * 100, int(rng.integers(1, 10_000))) for price in prices]
        rows.extend(fresh)
        for kind, _, side, price, qty in fresh:
            books[market].apply(kind, side, price, qty)

    for market in range(markets):
        snapshot(market)
    while len(rows) < n:
        market = int(rng.integers(markets))
        book = books[market]
        if book.levels is None:
            snapshot(market)
        elif rng.random() < 0.005:
            rows.append((GAP, market, 0, 0, 0))
            book.apply(GAP, 0, 0, 0)
        else:
            side, price = int(rng.integers(2)), int(rng.integers(1, 50)) * 100
            there = book.levels.get((side, price), 0)
            change = -there if there and rng.random() < 0.3 else int(rng.integers(1, 10_000))
            rows.append((DELTA, market, side, price, change))
            book.apply(DELTA, side, price, change)
    return rows
