"""CSV: the recorded events and trades, or the best bid and ask, with exact decimals; a file for each date.

Prices are dollars with four digits, sizes contracts with two, times UTC with nine. Not here: other forms.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from kalshi_fast._book import SIDES
from kalshi_fast.exporting.days import DAY_NS, runs
from kalshi_fast.replaying.chunks import ALL_COLUMNS
from kalshi_fast.replaying.tables import exact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.replaying.chunks import Chunk
    from kalshi_fast.replaying.replay import Replay
    from kalshi_fast.replaying.source import Source

EVENT_COLUMNS: Final = ALL_COLUMNS
OPTIONS: Final = pyarrow.csv.WriteOptions(quoting_style="needed")
_TYPES: Final = pa.array(["snapshot", "delta", "clear", "gap"])
_SIDES: Final = pa.array(SIDES)


def event_tables(source: Source) -> Iterator[tuple[str, pa.Table]]:
    """Every event as it was recorded, with its date."""
    for chunk in source.chunks(EVENT_COLUMNS):
        yield from by_date(_events(chunk, source.tickers), "ingest_ts")


def trade_tables(replay: Replay) -> Iterator[tuple[str, pa.Table]]:
    """Every trade as it was recorded, with its date."""
    for batch in replay.trades():
        rows = pa.Table.from_batches([batch])
        names = {"market": "market_ticker", "at": "ingest_ts"}
        rows = rows.rename_columns([names.get(name, name) for name in rows.column_names])
        rows = rows.select(["ingest_ts", *(name for name in rows.column_names if name != "ingest_ts")])
        yield from by_date(exact(rows), "ingest_ts")


def bbo_tables(replay: Replay) -> Iterator[tuple[str, pa.Table]]:
    """A row whenever the best bid or ask or its size changes, or whether the book is known."""
    for batch in replay.bbo():
        yield from by_date(exact(pa.Table.from_batches([batch])), "at")


def by_date(table: pa.Table, time: str) -> Iterator[tuple[str, pa.Table]]:
    """Neighbours of one date (UTC)."""
    days = table.column(time).combine_chunks().cast(pa.int64()).to_numpy() // DAY_NS
    for first, stop in runs(days):
        yield str(np.datetime64(int(days[first]), "D")), table.slice(first, stop - first)


def _events(chunk: Chunk, tickers: list[str]) -> pa.Table:
    return exact(
        pa.table(
            {
                "ingest_ts": pa.array(chunk.ingest_ns).view(pa.timestamp("ns", "UTC")),
                "ts": pa.array(np.ascontiguousarray(chunk.ts_us)).view(pa.timestamp("us", "UTC")),
                "type": pa.DictionaryArray.from_arrays(pa.array(chunk.type), _TYPES),
                "market_ticker": pa.DictionaryArray.from_arrays(
                    pa.array(chunk.market_ix), pa.array(tickers, pa.string())
                ),
                "side": pa.DictionaryArray.from_arrays(pa.array(chunk.side), _SIDES),
                "price_e4": pa.array(chunk.price_e4),
                "qty_e2": pa.array(chunk.qty_e2),
                "conn_id": pa.array(np.ascontiguousarray(chunk.conn_id)),
                "sid": pa.array(np.ascontiguousarray(chunk.sid)),
                "seq": pa.array(np.ascontiguousarray(chunk.seq)),
            }
        )
    )


def file_date(date: str) -> str:
    """2026-01-31 as it is in names of files."""
    return re.sub("-", "", date)
