"""How event files are laid out on disk: names, encodings, sizes. Shared by all who write them.

Each choice was measured in bytes per event on real recordings and on synthetic markets
(benchmarks/test_storage.py prints the result). Not here: who writes, and when (``parquet``, ``compact``).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import pyarrow as pa

from kalshi_fast.arrow import EVENT_SCHEMA

Range: TypeAlias = list[Any]  # journal, seq, row, seq, row

# Twice as many rows save 1 % and double what a reader of one minute has to decode; half as many cost 2 %.
ROW_GROUP_ROWS: Final = 131_072
# Against level 1: 1 % smaller at the same speed; level 9: another 1 % for twice the time.
ZSTD_LEVEL: Final = 3

PREFIX: Final = "kalshi_fast."  # of our keys in the file's metadata
RANGES_KEY: Final = f"{PREFIX}ranges"
SCHEMA_VERSION_KEY: Final = f"{PREFIX}schema_version"
VERSION_KEY: Final = f"{PREFIX}version"
RECORDER_KEY: Final = f"{PREFIX}recorder"

_REPEATING: Final = ("conn_id", "sid", "price_e4", "yes_price_e4", "avg_60s_ticks", "avg_final_60s_ticks")
# Numbers and times mostly rise by little. qty_e2 has no such order: values that repeat are left to ZSTD.
_ENCODINGS: Final = {
    "seq": "DELTA_BINARY_PACKED",
    "ts": "DELTA_BINARY_PACKED",
    "source_ts": "DELTA_BINARY_PACKED",
    "received_ts": "DELTA_BINARY_PACKED",
    "ingest_ts": "DELTA_BINARY_PACKED",
    "qty_e2": "PLAIN",
}


def writer_options(schema: pa.Schema = EVENT_SCHEMA) -> dict[str, Any]:
    """Keyword arguments of ``pyarrow.parquet.ParquetWriter`` for a file of this schema."""
    names = schema.names
    dictionaries = [
        field.name for field in schema if pa.types.is_dictionary(field.type) or field.name in _REPEATING
    ]
    return {
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL,
        "use_dictionary": dictionaries,
        # Room for an id per row: a column that leaves its dictionary in mid-group grows tenfold.
        "dictionary_pagesize_limit": ROW_GROUP_ROWS * 64,
        "column_encoding": {name: kind for name, kind in _ENCODINGS.items() if name in names},
        "write_statistics": True,
        # For readers that skip pages within a row group (ClickHouse, DuckDB, Spark): 0.1 % of the size.
        "write_page_index": True,
        # A damaged page is an error to those who ask for verification, not other rows.
        "write_page_checksum": True,
        "version": "2.6",
    }


def ranges_of(text: str | bytes) -> list[Range]:
    """Which rows of which journals a file holds, as its metadata say. Raises ValueError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(map(_is_range, found)):
        raise ValueError("expected a list of [journal, seq, row, seq, row]")
    return found


def _is_range(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 5
        and isinstance(entry[0], str)
        and all(isinstance(number, int) for number in entry[1:])
    )


def date_name(unix_us: int) -> str:
    """The directory of the date (UTC) of this moment."""
    return f"date={datetime.fromtimestamp(unix_us // 1_000_000, UTC):%Y-%m-%d}"


def part_name(unix_us: int) -> str:
    """The name of a file whose first row arrived at this moment."""
    second, us = divmod(unix_us, 1_000_000)
    return f"part-{datetime.fromtimestamp(second, UTC):%H%M%S}_{us:06d}.parquet"
