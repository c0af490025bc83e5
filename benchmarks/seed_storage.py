"""How the system before kalshi-fast stored an event: its ClickHouse table and its Parquet writer, rebuilt.

Whole cents, whole contracts, microseconds; in Parquet every time is a string of RFC 3339 and every number
64 bits wide. The real recordings of 2025 are of this form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = {
    "type": "Enum8('snapshot' = 1, 'delta' = 2) CODEC(LZ4)",
    "sid": "UInt32 CODEC(Delta, ZSTD(3))",
    "seq": "UInt64 CODEC(Delta, ZSTD(3))",
    "market_id": "UUID CODEC(ZSTD(5))",
    "market_ticker": "LowCardinality(String) CODEC(ZSTD(5))",
    "side": "Enum8('yes' = 1, 'no' = 2) CODEC(LZ4)",
    "price": "UInt16 CODEC(DoubleDelta, ZSTD(3))",
    "qty": "Int32 CODEC(Delta, ZSTD(3))",
    "ts": "DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(3))",
    "ingest_ts": "DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(3))",
}


def ddl(table: str) -> str:
    """The statement that makes its table of events."""
    columns = ", ".join(f"{name} {definition}" for name, definition in _COLUMNS.items())
    return (
        f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree PARTITION BY toYYYYMM(ts)"
        " ORDER BY (market_id, side, price, ts, seq) SETTINGS index_granularity = 8192"
    )


def seed_events(events: pa.Table) -> pa.Table:
    """What it would have stored of these events: no clear and gap rows, fractions cut off."""
    known = pc.is_in(events["type"].cast(pa.string()), pa.array(["snapshot", "delta"]))
    rows = events.filter(known)
    return pa.table(
        {
            "type": rows["type"].cast(pa.string()),
            "sid": rows["sid"].cast(pa.int64()),
            "seq": rows["seq"].cast(pa.int64()),
            "market_id": rows["market_id"].cast(pa.string()),
            "market_ticker": rows["market_ticker"].cast(pa.string()),
            "side": rows["side"].cast(pa.string()),
            "price": pc.divide(rows["price_e4"].cast(pa.int64()), 100),
            "qty": pc.divide(rows["qty_e2"], 100),
            "ts": rows["ts"],
            "ingest_ts": rows["ingest_ts"].cast(pa.timestamp("us", "UTC"), safe=False),
        }
    )


def write_parquet(rows: pa.Table, path: Path) -> None:
    """Its writer: default encodings, dictionaries everywhere, ZSTD, one row group per million rows."""
    for name in ("ts", "ingest_ts"):
        moments = np.datetime_as_string(rows[name].cast(pa.int64()).to_numpy().astype("datetime64[us]"))
        texts = pa.array([f"{moment}+00:00" for moment in moments])
        rows = rows.set_column(rows.column_names.index(name), name, texts)
    pq.write_table(rows, path, compression="zstd", use_dictionary=True)
